"""UnitGradients: the gradients of one unit of the model (a layer), gathered until all are there and accumulated by grouped calls."""

from collections.abc import Callable

import torch

# Below it a tensor's own kernel costs more than the second pass over it that a grouped addition of mixed precisions needs.
_SMALL_NUMEL = 2**16


class UnitGradients:
    """Accumulates into the parameters' `main_grad` (fp32), once a micro-batch.

    A step's first gradients are copied over what is there, so nobody has to clear the buffer and no addition reads it. The result has
    the bits of clearing it and adding each gradient.
    """

    def __init__(self, parameters: list[torch.nn.Parameter]):
        self._parameters = parameters
        self._arrived: dict[torch.nn.Parameter, tuple[torch.Tensor, Callable[[], None]]] = {}
        self._unwritten = set(parameters)
        self._scratch: list[torch.Tensor] = []

    def begin_step(self, is_cleared: bool = False) -> None:
        """What main_grad holds counts no more; is_cleared: it holds zeros, and every gradient of the step is added."""
        self._arrived.clear()
        self._unwritten = set() if is_cleared else set(self._parameters)

    def arrive(self, parameter: torch.nn.Parameter, gradient: torch.Tensor, when_accumulated: Callable[[], None]) -> None:
        """Take a parameter's gradient of a micro-batch; it is accumulated together with the unit's other ones, or before its own next one."""
        if parameter in self._arrived:
            self.accumulate()
        self._arrived[parameter] = gradient, when_accumulated
        if len(self._arrived) == len(self._parameters):
            self.accumulate()

    def finish_step(self) -> None:
        """Accumulate what is left; parameters that had no gradient in this step get zeros."""
        self.accumulate()
        if self._unwritten:
            torch._foreach_zero_([parameter.main_grad for parameter in self._unwritten])
            self._unwritten = set()

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add to main_grad what has arrived."""
        arrived, self._arrived = self._arrived, {}
        first = {p: gradient for p, (gradient, _) in arrived.items() if p in self._unwritten}
        later = {p: gradient for p, (gradient, _) in arrived.items() if p not in self._unwritten}
        if first:
            torch._foreach_copy_([parameter.main_grad for parameter in first], list(first.values()))
            self._unwritten -= first.keys()
        if later:
            self._add(later)
        for _, when_accumulated in arrived.values():
            when_accumulated()

    def _add(self, gradients: dict[torch.nn.Parameter, torch.Tensor]) -> None:
        """Grouped kernels add equal precisions only: small tensors are widened first, large ones are added one by one."""
        grouped = {p: g for p, g in gradients.items() if g.dtype == torch.float32 or g.numel() <= _SMALL_NUMEL}
        for parameter, gradient in gradients.items():
            if parameter not in grouped:
                parameter.main_grad.add_(gradient)
        if not grouped:
            return
        sums, added = [parameter.main_grad for parameter in grouped], list(grouped.values())
        if added[0].dtype != torch.float32:
            if [tensor.shape for tensor in self._scratch] != [tensor.shape for tensor in added]:
                self._scratch = [torch.empty_like(tensor, dtype=torch.float32) for tensor in added]
            torch._foreach_copy_(self._scratch, added)
            added = self._scratch
        torch._foreach_add_(sums, added)
