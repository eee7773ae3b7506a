"""Lists of tensors cut into parts of bounded size, for work that needs memory beside them."""

from collections.abc import Iterator, Sequence

import torch

SLICE_NUMEL = 2**24  # 64 MB in fp32


def slices(tensors: Sequence[torch.Tensor], max_numel: int = SLICE_NUMEL) -> Iterator[list[torch.Tensor]]:
    """The tensors in order, in parts of at most max_numel elements; a larger tensor is a part of its own."""
    part, numel = [], 0
    for tensor in tensors:
        if part and numel + tensor.numel() > max_numel:
            yield part
            part, numel = [], 0
        part.append(tensor)
        numel += tensor.numel()
    if part:
        yield part
