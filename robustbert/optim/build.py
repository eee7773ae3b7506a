"""build_optimizer: megatron-core's optimizer for a stage, with loss scaling, main weights and sharded state."""

from dataclasses import dataclass

import torch

from robustbert.config import OptimConfig, ParallelConfig
from robustbert.device import PRECISION_DTYPES
from robustbert.optim.fused_adam import give_to_megatron
from robustbert.optim.schedule import apply_learning_rate
from robustbert.parallel.mesh import Mesh


@dataclass(frozen=True)
class Update:
    """What one optimizer step did."""

    applied: bool  # False: fp16 overflow, the weights are as they were
    lr: float
    grad_norm: float | None  # over all parameters of the model, before clipping; None where not applied
    loss_scale: float


class Optimizer:
    """megatron-core's optimizer with the schedule: one `step` reduces, unscales, clips and updates."""

    def __init__(self, megatron_optimizer, config: OptimConfig, total_steps: int):
        self.megatron = megatron_optimizer
        self._config = config
        self._total_steps = total_steps

    def zero_grad(self) -> None:
        self.megatron.zero_grad()

    def step(self, step: int) -> Update:
        """Apply the reduced gradients as update number `step` (counted from 0)."""
        rate = apply_learning_rate(self.megatron, self._config, step, self._total_steps)
        scale = float(self.megatron.get_loss_scale())
        applied, grad_norm, _ = self.megatron.step()
        return Update(applied, rate, float(grad_norm) if applied else None, scale)

    def sharded_state_dict(self, model_state: dict, is_loading: bool) -> dict:
        """For dist_checkpointing; readable at another layout."""
        return self.megatron.sharded_state_dict(
            model_state,
            is_loading=is_loading,
            metadata={"distrib_optim_sharding_type": "fully_reshardable"},
        )

    def load_state_dict(self, state: dict) -> None:
        self.megatron.load_state_dict(state)


def build_optimizer(
    config: OptimConfig, parallel: ParallelConfig, model, mesh: Mesh, precision: str, total_steps: int
) -> Optimizer:
    """The optimizer of a stage wrapped by build_data_parallel.

    fp16 has a dynamic loss scale; fp16 and bf16 keep fp32 main weights; with parallel.distributed_optimizer the
    state is split over the data-parallel ranks.
    """
    give_to_megatron()
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    dtype = PRECISION_DTYPES[precision]
    megatron_optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=config.lr,
            weight_decay=config.weight_decay,
            adam_beta1=config.betas[0],
            adam_beta2=config.betas[1],
            adam_eps=config.eps,
            # An infinite bound never clips, but the norm is computed and logged.
            clip_grad=config.clip_grad or float("inf"),
            fp16=dtype == torch.float16,
            bf16=dtype == torch.bfloat16,
            params_dtype=dtype,
            initial_loss_scale=config.initial_loss_scale,
            min_loss_scale=config.min_loss_scale,
            loss_scale_window=config.loss_scale_window,
            hysteresis=config.loss_scale_hysteresis,
            use_distributed_optimizer=parallel.distributed_optimizer,
        ),
        [model],
    )
    if precision == "fp16":
        model.config.grad_scale_func = megatron_optimizer.scale_loss
    return Optimizer(megatron_optimizer, config, total_steps)
