"""GroupedUpdate: one update of the weights by few kernels, with one wait for the device.

It takes the place of megatron-core's `step`, which works parameter by parameter; the state stays in megatron-core's optimizer.
"""

import math
from dataclasses import dataclass

import torch

from robustbert.optim.fused_adam import FusedAdam
from robustbert.optim.gradient_norm import counted_runs, sum_of_squares
from robustbert.optim.state import main_weights


@dataclass(frozen=True)
class Outcome:
    """What an update did."""

    applied: bool  # False: fp16 overflow, the weights are as they were
    grad_norm: float  # over the whole model's gradients, normalised and unscaled, before clipping
    loss_scale: float


class GroupedUpdate:
    """The update of a stage by a megatron-core optimizer; the lists of tensors are made once."""

    def __init__(self, single_optimizer, model, is_sharded: bool, clip_grad: float | None):
        """single_optimizer: one of state.single_optimizers; model: the parallel.ddp.DataParallel it was built for."""
        self._model = model
        self._inner = single_optimizer.optimizer
        self._scaler = getattr(single_optimizer, "grad_scaler", None)
        self._group = single_optimizer.get_grad_stats_parallel_group()
        self._clip_grad = clip_grad
        self._runs = counted_runs(model, is_sharded)
        self._one = torch.ones((), dtype=torch.float64, device=model.buffers[0].grad_data.device)
        self._main, self._gradients = [], []
        self._model_weights, self._copied_weights = [], []  # what 16-bit weights are copied from: main weights in fp32
        for parameter, main, start, stop in main_weights(single_optimizer):
            self._main.append(main)
            self._gradients.append(parameter.main_grad.view(-1)[start:stop].view(main.shape))
            if main.dtype != parameter.dtype:
                self._model_weights.append(parameter.detach().view(-1)[start:stop])
                self._copied_weights.append(main.detach().view(-1))

    @torch.no_grad()
    def apply(self) -> Outcome:
        """Update main and model weights by the gradients in the DDP's buffer, which are reduced; the weights' gather begins.

        A collective call. An overflow (fp16) leaves the weights as they are and lowers the loss scale.
        """
        scale = self._one if self._scaler is None else self._scaler.scale.double().squeeze()
        norm, divisor = self._measure(scale)
        numbers = torch.stack([norm, scale])
        known = self._step_inner(norm, divisor, numbers)
        if self._model_weights:
            torch._foreach_copy_(self._model_weights, self._copied_weights)
        self._model.gradient_divisor = None
        self._model.begin_weight_gather()
        grad_norm, loss_scale = known or numbers.tolist()  # the one wait, when all work of the update is under way
        is_overflow = self._scaler is not None and not math.isfinite(grad_norm)
        if self._scaler is not None:
            self._scaler.update(is_overflow)
        if is_overflow and isinstance(self._inner, FusedAdam):
            self._inner.take_back_step()
        return Outcome(not is_overflow, grad_norm, loss_scale)

    def _measure(self, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(norm in float64, what the buffer's gradients are to be divided by in fp32), on the device.

        The divisor has the number of masked tokens, the loss scale and the clipping in it.
        """
        divisor = scale if self._model.gradient_divisor is None else scale * self._model.gradient_divisor
        norm = sum_of_squares(self._runs, self._group, self._one.device).sqrt() / divisor
        if self._clip_grad:
            divisor = divisor * ((norm + 1e-6) / self._clip_grad).clamp(min=1)
        return norm, divisor.float()

    def _step_inner(self, norm: torch.Tensor, divisor: torch.Tensor, numbers: torch.Tensor) -> list[float] | None:
        """Step the inner optimizer. Returns `numbers` as floats if it had to wait for them, else None."""
        known = None
        for main, gradient in zip(self._main, self._gradients):
            main.grad = gradient
        if isinstance(self._inner, FusedAdam):
            # Its kernel divides in passing, and changes nothing where it is told of an overflow.
            found_inf = None if self._scaler is None else (norm * 0).ne(0).float()
            self._inner.step(grad_divisor=divisor, found_inf=found_inf)
        else:
            known = None if self._scaler is None else numbers.tolist()
            if known is None or math.isfinite(known[0]):
                torch._foreach_mul_(self._gradients, divisor.reciprocal())
                self._inner.step()
        for main in self._main:
            main.grad = None
        return known
