"""Data parallelism: a stage wrapped for training (ddp.py), communication behind the forward and backward passes."""

import contextlib
import functools

import torch

from robustbert.config import ParallelConfig
from robustbert.parallel.mesh import Mesh


def build_data_parallel(
    model, config: ParallelConfig, mesh: Mesh, overlaps_gather: bool = True, is_recorded: bool = False
):
    """A stage (model.roberta.RobertaStage) wrapped for training. Gradients are accumulated and reduced in fp32 whatever the parameters' precision.

    They are summed, not averaged: finalize_gradients notes the global number of masked tokens, by which the update divides.
    With several data-parallel ranks gradients are reduced behind the backward pass, and with the distributed optimizer weights are
    gathered behind the next forward pass (overlaps_gather; otherwise within the update). is_recorded: for CUDA graphs.

    Both go by buckets of whole tensors: at least max(40, dp) million elements, the word embedding in one of its own, and on later
    pipeline stages one for all the rest. A bucket is reduced as soon as its last gradient is there, so of a model with few buckets
    less is hidden: with one stage base has 4 (41, 40, 5, 39 million), large 9.
    """
    from megatron.core.distributed import DistributedDataParallelConfig

    from robustbert.parallel.ddp import DataParallel, finalize_gradients

    ddp_config = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        overlap_grad_reduce=mesh.dp_size > 1,
        overlap_param_gather=overlaps_gather and mesh.dp_size > 1 and config.distributed_optimizer,
        use_distributed_optimizer=config.distributed_optimizer,
    )
    # A graph is recorded on a stream of its own, and gradients arrive on the stream on which their hooks were made.
    with torch.cuda.stream(torch.cuda.Stream()) if is_recorded and mesh.device.is_cuda else contextlib.nullcontext():
        wrapped = DataParallel(model, ddp_config, mesh)
    wrapped.is_recorded = is_recorded
    model.config.no_sync_func = wrapped.no_sync
    model.config.finalize_model_grads_func = functools.partial(finalize_gradients, mesh)
    return wrapped


def fused_gradient_accumulation_available() -> bool:
    """Whether Apex's kernel that adds a weight's gradient to the fp32 buffer within the product is here (16-bit parameters on CUDA)."""
    try:
        import fused_weight_gradient_mlp_cuda  # noqa: F401
    except ImportError:
        return False
    return torch.cuda.is_available()
