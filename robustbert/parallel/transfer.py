"""Micro-batches on their way to the device: one pinned, asynchronous transfer each, the next one while this one computes.

On a GPU the number of predictions is filled up to the most that a micro-batch can have, so that all have the same shapes.
B rows, S sequence, M masked positions, T = B * S.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from robustbert.parallel.linear_cross_entropy import IGNORE_INDEX
from robustbert.pinned_copies import PinnedCopies

_MULTIPLE = 64  # predictions of a batch that has more than it announced are rounded up to it


@dataclass(frozen=True)
class DeviceBatch:
    """A Batch where it is computed. Integers are int32 on a GPU and int64 on the CPU.

    lengths_B: real tokens of each row; None where no row has padding. targets_M: IGNORE_INDEX where the batch was filled up.
    num_masked_tokens: without those. The rest as in data.batches.Batch.
    """

    tokens_BS: torch.Tensor
    lengths_B: torch.Tensor | None
    masked_positions_M: torch.Tensor
    targets_M: torch.Tensor
    num_masked_tokens: int
    token_types_BS: torch.Tensor | None = None
    is_next_B: torch.Tensor | None = None


class Transfer:
    """Brings batches to one device. packs: whether by one asynchronous copy, which is how a GPU gets them."""

    def __init__(self, device: torch.device, packs: bool | None = None):
        packs = device.type == "cuda" if packs is None else packs
        self._copies = PinnedCopies(device, pack, unpack) if packs else None

    def __call__(self, batches: Iterable) -> Iterator[DeviceBatch]:
        """The data.batches.Batch in order; by copies, each is sent off before the one ahead of it is handed out."""
        return self._copies(batches) if self._copies is not None else map(_unpacked, batches)


def num_predictions(batch) -> int:
    """The number that a batch' predictions are filled up to."""
    actual = len(batch.targets_M)
    return batch.most_predictions if actual <= batch.most_predictions else -(-actual // _MULTIPLE) * _MULTIPLE


def pack(batch, pin: bool = False) -> torch.Tensor:
    """All of a batch in one int32 tensor of the host."""
    missing = num_predictions(batch) - len(batch.targets_M)
    parts = [batch.tokens_BS.flatten(), _lengths(batch), batch.masked_positions_M, batch.targets_M]
    parts[3:3] = [torch.zeros(missing, dtype=torch.int64)]
    parts.append(torch.full((missing,), IGNORE_INDEX))
    parts += [part.flatten() for part in (batch.token_types_BS, batch.is_next_B) if part is not None]
    packed = torch.empty(sum(map(len, parts)), dtype=torch.int32, pin_memory=pin)
    return torch.cat(parts, out=packed) if not pin else packed.copy_(torch.cat(parts))


def unpack(packed: torch.Tensor, batch) -> DeviceBatch:
    """The parts of what `pack` made of the batch; views, no copies."""
    (rows, length), predictions = batch.tokens_BS.shape, num_predictions(batch)
    sizes = [rows * length, rows, predictions, predictions]
    if batch.is_next_B is not None:
        sizes += [rows * length, rows]
    tokens, lengths, positions, targets, *pair = packed.split(sizes)
    token_types, is_next = pair or (None, None)
    return DeviceBatch(
        tokens_BS=tokens.view(rows, length),
        lengths_B=lengths,
        masked_positions_M=positions,
        targets_M=targets,
        num_masked_tokens=len(batch.targets_M),
        token_types_BS=None if token_types is None else token_types.view(rows, length),
        is_next_B=is_next,
    )


def _unpacked(batch) -> DeviceBatch:
    return DeviceBatch(
        batch.tokens_BS,
        None if batch.attended_BS is None else _lengths(batch),
        batch.masked_positions_M,
        batch.targets_M,
        len(batch.targets_M),
        batch.token_types_BS,
        batch.is_next_B,
    )


def _lengths(batch) -> torch.Tensor:
    rows, length = batch.tokens_BS.shape
    return torch.full((rows,), length) if batch.attended_BS is None else batch.attended_BS.sum(1)
