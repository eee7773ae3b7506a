"""build_optimizer: megatron-core's optimizer for a stage, with loss scaling, main weights and sharded state."""

from dataclasses import dataclass

import torch

from robustbert.config import OptimConfig, ParallelConfig
from robustbert.device import PRECISION_DTYPES
from robustbert.optim.fused_lamb import FusedLamb, WholeTensors
from robustbert.optim.optimizer_class import give_to_megatron
from robustbert.optim.schedule import apply_learning_rate
from robustbert.optim.state import OwnedPart, main_weights, owned_parts, restore_scalars, scalars, single_optimizers
from robustbert.optim.update import GroupedUpdate
from robustbert.parallel.mesh import Mesh


@dataclass(frozen=True)
class Update:
    """What one optimizer step did."""

    applied: bool  # False: fp16 overflow, the weights are as they were
    lr: float
    grad_norm: float | None  # over all parameters of the model, before clipping; None where not applied
    loss_scale: float


class Optimizer:
    """megatron-core's optimizer with the schedule: one `step` normalises, unscales, clips and updates."""

    def __init__(self, megatron_optimizer, model, config: OptimConfig, total_steps: int, is_sharded: bool):
        """model: the parallel.ddp.DataParallel that megatron_optimizer was built for."""
        self.megatron = megatron_optimizer
        self._config = config
        self._total_steps = total_steps
        self._is_sharded = is_sharded
        (single,) = single_optimizers(megatron_optimizer)
        self._update = GroupedUpdate(single, model, is_sharded, config.clip_grad)
        self._initial_scalars = self.scalars()

    def zero_grad(self) -> None:
        self.megatron.zero_grad()

    def step(self, step: int) -> Update:
        """Apply the reduced gradients as update number `step` (counted from 0). The host waits for the device once."""
        rate = apply_learning_rate(self.megatron, self._config, step, self._total_steps)
        outcome = self._update.apply()
        return Update(outcome.applied, rate, outcome.grad_norm if outcome.applied else None, outcome.loss_scale)

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
    is_sharded = mesh.tp_size > 1 or (parallel.distributed_optimizer and mesh.dp_size > 1)
    give_to_megatron(config.name, has_whole_tensors=not is_sharded and config.weight_decay > 0)
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer

    dtype = PRECISION_DTYPES[precision]
    megatron_optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",  # of the class that give_to_megatron chose
            lr=config.lr,
            weight_decay=config.weight_decay,
            adam_beta1=config.betas[0],
            adam_beta2=config.betas[1],
            adam_eps=config.eps,
            clip_grad=0.0,  # GroupedUpdate clips
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
    for single in single_optimizers(megatron_optimizer):
        if isinstance(single.optimizer, FusedLamb):
            single.optimizer.whole_tensors = _whole_tensors(single, model, mesh, parallel.distributed_optimizer)
    return Optimizer(megatron_optimizer, model, config, total_steps, parallel.distributed_optimizer)


def _whole_tensors(single_optimizer, model, mesh: Mesh, is_sharded: bool) -> WholeTensors:
    """What this rank's main weights are parts of: the stage's parameters, which all its ranks have in the same order."""
    parameters = list(model.parameters())
    numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
    return WholeTensors(
        number_of={id(main): numbers[id(parameter)] for parameter, main, _, _ in main_weights(single_optimizer)},
        num_tensors=len(parameters),
        device=mesh.device.torch_device,
        tensor_parallel_numbers=tuple(
            number for number, parameter in enumerate(parameters) if getattr(parameter, "tensor_model_parallel", False)
        ),
        tensor_group=mesh.groups.tp if mesh.tp_size > 1 else None,
        shard_group=mesh.groups.dp if is_sharded and mesh.dp_size > 1 else None,
    )
