"""The projection onto the vocabulary and its cross-entropy in one, the vocabulary split over the tensor-parallel ranks.

The logits exist once, in the model's precision, and the backward pass turns them into their own gradient in place: nothing of
their size is ever made in fp32. M predictions, H hidden, V padded vocabulary, /tp = split over tensor-parallel ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F

IGNORE_INDEX = -100  # the target of a position that only fills the batch up
_CHUNK_NUMEL = 2**24  # logits turned into fp32 at a time: 64 MB


@dataclass(frozen=True)
class VocabularyShard:
    """This rank's rows of the vocabulary: [first_row, first_row + rows of the weight); group: None where no one else has any."""

    first_row: int = 0
    group: dist.ProcessGroup | None = None
    size: int = 1


@dataclass(frozen=True)
class ChunkKernels:
    """What is computed of some rows of logits at a time; torch.compile makes one kernel of each."""

    statistics: Callable
    gradient: Callable
    chunk_numel: int = _CHUNK_NUMEL

    def chunks(self, num_rows: int, num_columns: int) -> list[slice]:
        size = max(1, self.chunk_numel // max(1, num_columns))
        return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def row_statistics(logits_MV: torch.Tensor, column_M: torch.Tensor, is_own_M: torch.Tensor) -> torch.Tensor:
    """Of each row log(sum(exp(logits))), and its target's logit, 0 where that is not among these columns: fp32 (2, M)."""
    logits_MV = logits_MV.float()
    target_M = logits_MV.gather(1, column_M[:, None])[:, 0]
    return torch.stack([logits_MV.logsumexp(1), torch.where(is_own_M, target_M, 0.0)])


def turn_into_gradient(
    logits_MV: torch.Tensor, logsumexp_M: torch.Tensor, column_M: torch.Tensor, is_own_M: torch.Tensor, weight_M: torch.Tensor
) -> None:
    """In place: weight * (softmax - 1 at the target), computed in fp32 and rounded once."""
    columns_V = torch.arange(logits_MV.shape[1], device=logits_MV.device)
    is_target_MV = (columns_V == column_M[:, None]) & is_own_M[:, None]
    probability_MV = (logits_MV.float() - logsumexp_M[:, None]).exp()
    logits_MV.copy_((probability_MV - is_target_MV.float()) * weight_M[:, None])


def turn_into_gradient_in_place(logits_MV, logsumexp_M, column_M, is_own_M, weight_M) -> None:
    """turn_into_gradient in few passes where no compiler makes one of it."""
    probability_MV = logits_MV.float() if logits_MV.dtype != torch.float32 else logits_MV
    probability_MV.sub_(logsumexp_M[:, None]).exp_()
    at_target_M = probability_MV.gather(1, column_M[:, None])[:, 0] - is_own_M.float()
    probability_MV.scatter_(1, column_M[:, None], at_target_M[:, None]).mul_(weight_M[:, None])
    if probability_MV is not logits_MV:
        logits_MV.copy_(probability_MV)


PLAIN_KERNELS = ChunkKernels(row_statistics, turn_into_gradient_in_place)


def linear_cross_entropy(
    x_MH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor,
    targets_M: torch.Tensor,
    shard: VocabularyShard = VocabularyShard(),
    kernels: ChunkKernels = PLAIN_KERNELS,
) -> torch.Tensor:
    """The negative log-likelihoods of the targets under softmax(x W^T + b), summed: a scalar, fp32 (nats).

    weight_VH, bias_V: this rank's rows, V/tp; a bias of -inf takes a row out of the softmax. targets_M: ids of the whole
    vocabulary, IGNORE_INDEX where there is nothing to predict. x_MH is the same on all tensor-parallel ranks, and so is its gradient.
    """
    return _LinearCrossEntropy.apply(x_MH, weight_VH, bias_V, targets_M, shard, kernels)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_MH, weight_VH, bias_V, targets_M, shard: VocabularyShard, kernels: ChunkKernels):
        logits_MV = F.linear(x_MH, weight_VH, bias_V)
        column_M, is_own_M = _own_columns(targets_M, shard, len(weight_VH))
        chunks = kernels.chunks(*logits_MV.shape)
        parts = [kernels.statistics(logits_MV[rows], column_M[rows], is_own_M[rows]) for rows in chunks]
        statistics_2M = torch.cat(parts, 1) if parts else logits_MV.new_zeros(2, 0, dtype=torch.float32)
        logsumexp_M, target_M = _over_shards(statistics_2M, shard)
        is_counted_M = targets_M != IGNORE_INDEX
        ctx.shard, ctx.kernels, ctx.chunks = shard, kernels, chunks
        ctx.save_for_backward(x_MH, weight_VH, logits_MV, logsumexp_M, column_M, is_own_M, is_counted_M)
        return torch.where(is_counted_M, logsumexp_M - target_M, 0.0).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        x_MH, weight_VH, logits_MV, logsumexp_M, column_M, is_own_M, is_counted_M = ctx.saved_tensors
        weight_M = torch.where(is_counted_M, upstream.float(), 0.0)
        for rows in ctx.chunks:
            ctx.kernels.gradient(logits_MV[rows], logsumexp_M[rows], column_M[rows], is_own_M[rows], weight_M[rows])
        reduction = None
        grad_x_MH = logits_MV @ weight_VH
        if ctx.shard.size > 1:
            reduction = dist.all_reduce(grad_x_MH, group=ctx.shard.group, async_op=True)
        grad_weight_VH = logits_MV.T @ x_MH
        grad_bias_V = logits_MV.sum(0)
        if reduction is not None:
            reduction.wait()
        return grad_x_MH, grad_weight_VH, grad_bias_V, None, None, None


def _own_columns(targets_M: torch.Tensor, shard: VocabularyShard, num_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The column of each target among this rank's rows, 0 where it is not there, and whether it is."""
    column_M = targets_M.long() - shard.first_row
    is_own_M = (column_M >= 0) & (column_M < num_rows)
    return torch.where(is_own_M, column_M, 0), is_own_M


def _over_shards(statistics_2M: torch.Tensor, shard: VocabularyShard) -> tuple[torch.Tensor, torch.Tensor]:
    if shard.size == 1 or statistics_2M.shape[1] == 0:
        return statistics_2M.unbind(0)
    gathered = statistics_2M.new_empty(shard.size * 2, statistics_2M.shape[1])
    dist.all_gather_into_tensor(gathered, statistics_2M, group=shard.group)
    return gathered[0::2].logsumexp(0), gathered[1::2].sum(0)
