"""The processes of a finetuning: each has the whole model and a share of every batch.

Sums are taken in the order of one binary tree over the micro-batches, whatever the number of processes: the same bits come
out of 1, 2 or 8 of them, so a result can be repeated on another machine.
"""

import torch
import torch.distributed as dist

from robustbert.finetune.settings import FinetuneError
from robustbert.job import Job
from robustbert.slices import slices


class Replicas:
    """This process among the others; torch.distributed must have been initialised."""

    def __init__(self, job: Job):
        if job.world_size & (job.world_size - 1):
            raise FinetuneError(f"finetuning takes 1, 2, 4, 8, ... processes, not {job.world_size}")
        self.rank, self.world_size = job.rank, job.world_size

    def my_leaves(self, num_leaves: int) -> range:
        """Which of a sum's leaves are this process': a subtree of the tree with num_leaves, rounded up to a power of two."""
        width = max(1, _power_of_two(num_leaves) // self.world_size)
        return range(min(num_leaves, self.rank * width), min(num_leaves, (self.rank + 1) * width))

    def sum(self, mine: list[torch.Tensor]) -> None:
        """Add the other processes' tensors to mine, in place: pairs, then pairs of pairs."""
        distance = 1
        while distance < self.world_size:
            partner = self.rank ^ distance
            for bucket in slices(mine):
                sent = torch.cat([tensor.reshape(-1) for tensor in bucket])
                received = torch.empty_like(sent)
                requests = [dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, received, partner)]
                for request in dist.batch_isend_irecv(requests):
                    request.wait()
                parts = received.split([tensor.numel() for tensor in bucket])
                torch._foreach_add_(bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket)])
            distance *= 2

    def gather(self, mine: dict) -> dict:
        """The entries of all processes' dictionaries, on every process."""
        if self.world_size == 1:
            return mine
        parts = [None] * self.world_size
        dist.all_gather_object(parts, mine)
        return {key: value for part in parts for key, value in part.items()}

    def barrier(self) -> None:
        """Wait for the others."""
        dist.barrier()


class TreeSum:
    """The sum of lists of tensors that come one after the other, in the order of a binary tree.

    Holds as many partial sums as the tree is deep: log2 of the number of terms.
    """

    def __init__(self):
        self._partial: list[tuple[int, list[torch.Tensor]]] = []  # (number of terms, sum), the largest first

    def add(self, terms: list[torch.Tensor]) -> None:
        """Take the next term; its tensors are changed."""
        size = 1
        while self._partial and self._partial[-1][0] == size:
            _, left = self._partial.pop()
            torch._foreach_add_(left, terms)
            size, terms = 2 * size, left
        self._partial.append((size, terms))

    def total(self) -> list[torch.Tensor] | None:
        """The sum so far; None without any term."""
        total = None
        for _, left in reversed(self._partial):
            if total is not None:
                torch._foreach_add_(left, total)
            total = left
        return total


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
