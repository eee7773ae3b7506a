"""Held-out perplexity: the exponential of the mean loss over masked tokens of text that training never sees."""

import math

from robustbert.parallel.mesh import Mesh
from robustbert.parallel.pipeline import forward_backward
from robustbert.progress import Progress


class Evaluation:
    """The same held-out sequences and masks every time, whatever the layout."""

    def __init__(self, valid_batches, interval: int, mesh: Mesh, progress: Progress):
        """valid_batches: this data-parallel rank's data.batches.Batch, equally many on each rank; may be None."""
        self._batches = valid_batches
        self._interval = interval
        self._mesh = mesh
        self._progress = progress

    def is_due(self, step: int) -> bool:
        return self._batches is not None and step % self._interval == 0

    def heldout_loss(self, model) -> float | None:
        """Nats a masked token; None where there is no held-out text. A collective call."""
        if self._batches is None:
            return None
        import torch

        model.eval()
        with torch.no_grad():
            total = forward_backward(
                model,
                list(self._batches),
                self._mesh,
                before_micro_batch=lambda _: self._progress.mark("evaluating"),
                forward_only=True,
            )
        model.train()
        return total.over_data_parallel(self._mesh).mean

    def heldout_perplexity(self, model) -> float | None:
        """exp(heldout_loss)."""
        loss = self.heldout_loss(model)
        return None if loss is None else math.exp(loss)
