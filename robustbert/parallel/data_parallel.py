"""Data parallelism: megatron-core's DDP around a stage, its gradients reduced in buckets behind the backward pass."""

from robustbert.config import ParallelConfig
from robustbert.parallel.mesh import Mesh


def build_data_parallel(model, config: ParallelConfig, mesh: Mesh):
    """A stage (model.roberta.RobertaStage) wrapped for training. Gradients are accumulated and reduced in fp32 whatever the parameters' precision.

    They are summed, not averaged: finalize_gradients divides by the global number of masked tokens.
    """
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )

    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=mesh.dp_size > 1,
        use_distributed_optimizer=config.distributed_optimizer,
    )
    wrapped = DistributedDataParallel(
        config=model.config, ddp_config=ddp_config, module=model, pg_collection=mesh.groups
    )
    model.config.no_sync_func = wrapped.no_sync
    model.config.finalize_model_grads_func = finalize_model_grads
    return wrapped
