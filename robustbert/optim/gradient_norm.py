"""The norm of a model's gradients, over the contiguous buffer that they lie in and without a wait for the device."""

from collections.abc import Iterator

import torch
import torch.distributed as dist

from robustbert.kernels import elementwise
from robustbert.kernels.build import load_kernels

_SLICE_NUMEL = 2**20  # widened to float64 at a time, on a CPU without the kernels


def counted_runs(model, is_sharded: bool) -> list[torch.Tensor]:
    """Flat fp32 views of the gradient buffer that together hold each gradient of the model once over all ranks; as few as possible.

    model: a parallel.ddp.DataParallel. is_sharded: this rank's shards of the buckets, otherwise all of them. Left out are other
    ranks' copies: those of parameters that every tensor-parallel rank has (on all but the first), and of the tied embedding.
    What lies between parameters is padding, always zero.
    """
    return [buffer.grad_data[start:stop] for buffer in model.buffers for start, stop in _counted_ranges(buffer, model.tp_group, is_sharded)]


def _counted_ranges(buffer, tensor_group, is_sharded: bool) -> list[tuple[int, int]]:
    from megatron.core.tensor_parallel import param_is_not_tensor_parallel_duplicate
    from megatron.core.transformer.module import param_is_not_shared

    def is_counted(parameter) -> bool:
        return param_is_not_shared(parameter) and param_is_not_tensor_parallel_duplicate(parameter, tensor_group)

    left_out = sorted(buffer.param_index_map[parameter][:2] for parameter in buffer.params if not is_counted(parameter))
    ranges: list[tuple[int, int]] = []
    for start, stop in _own_ranges(buffer, is_sharded):
        for kept_start, kept_stop in _without(start, stop, left_out):
            if ranges and ranges[-1][1] == kept_start:
                ranges[-1] = ranges[-1][0], kept_stop
            else:
                ranges.append((kept_start, kept_stop))
    return ranges


def _own_ranges(buffer, is_sharded: bool) -> Iterator[tuple[int, int]]:
    ranks, rank = (buffer.data_parallel_world_size, buffer.data_parallel_group.rank()) if is_sharded else (1, 0)
    for bucket in buffer.buckets:
        length = bucket.grad_data.numel() // ranks
        yield bucket.offset + rank * length, bucket.offset + (rank + 1) * length


def _without(start: int, stop: int, left_out: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """[start, stop) less the ranges in ascending order."""
    for first, last in left_out:
        if last <= start or first >= stop:
            continue
        if first > start:
            yield start, first
        start = last
    if start < stop:
        yield start, stop


def sum_of_squares(runs: list[torch.Tensor], group: dist.ProcessGroup, device: torch.device) -> torch.Tensor:
    """The squares of all elements of all ranks' runs, summed: float64, no dimension, on the device. A collective call of the group.

    A sum of millions of squares loses digits in fp32, but for CUDA's kernels, which sum in many small parts.
    """
    if not runs:
        total = torch.zeros((), dtype=torch.float64, device=device)
    elif runs[0].is_cuda:
        total = torch.stack(torch._foreach_norm(runs)).double().square().sum()
    elif load_kernels().library is not None:
        total = torch.stack([elementwise.sum_of_squares(run) for run in runs]).sum()
    else:
        parts = [part for run in runs for part in run.split(_SLICE_NUMEL)]
        total = torch.stack(torch._foreach_norm(parts, 2, torch.float64)).square().sum()
    if dist.get_world_size(group) > 1:
        dist.all_reduce(total, group=group)
    return total
