"""build_optimizer: megatron-core's optimizer for a stage, with loss scaling, main weights and sharded state."""

from dataclasses import dataclass

import torch

from robustbert.config import OptimConfig, ParallelConfig
from robustbert.device import PRECISION_DTYPES
from robustbert.optim.fused_adam import give_to_megatron
from robustbert.optim.schedule import apply_learning_rate
from robustbert.optim.state import OwnedPart, owned_parts, restore_scalars, scalars
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

    def __init__(self, megatron_optimizer, config: OptimConfig, total_steps: int, is_sharded: bool):
        self.megatron = megatron_optimizer
        self._config = config
        self._total_steps = total_steps
        self._is_sharded = is_sharded
        self._initial_scalars = self.scalars()

    def zero_grad(self) -> None:
        self.megatron.zero_grad()

    def step(self, step: int) -> Update:
        """Apply the reduced gradients as update number `step` (counted from 0)."""
        rate = apply_learning_rate(self.megatron, self._config, step, self._total_steps)
        scale = float(self.megatron.get_loss_scale())
        applied, grad_norm, _ = self.megatron.step()
        return Update(applied, rate, float(grad_norm) if applied else None, scale)

    @property
    def is_sharded(self) -> bool:
        """Whether each data-parallel rank holds another part of the state."""
        return self._is_sharded

    def owned_parts(self) -> list[OwnedPart]:
        """This rank's part of main weights and moments."""
        return owned_parts(self.megatron)

    def scalars(self) -> dict:
        """The state that is no tensor, for JSON."""
        return scalars(self.megatron)

    def restore_scalars(self, record: dict) -> None:
        """Take what `scalars` gave."""
        restore_scalars(self.megatron, record)

    def forget(self) -> None:
        """Be as new over the model's present weights: no moments, no steps, the initial loss scale."""
        for part in self.owned_parts():
            part.weight.copy_(part.parameter.detach().view(-1)[part.start : part.stop])
            for moment in part.moments.values():
                moment.zero_()
        self.restore_scalars(self._initial_scalars)


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
        use_gloo_process_groups=False,
    )
    if precision == "fp16":
        model.config.grad_scale_func = megatron_optimizer.scale_loss
    return Optimizer(megatron_optimizer, config, total_steps, parallel.distributed_optimizer)
