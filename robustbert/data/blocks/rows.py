"""What every packing has in common: rows of tokens, the sizes of a corpus' blocks, and the questions a packing answers.

Legend: N blocks asked for at once, S sequence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

NUM_FRAME_TOKENS = 2  # <s> and </s>
_SHORT_SPAN = 128  # below this mean length one copy of all indices is faster than a copy a span


class Rows(NamedTuple):
    """Blocks as rows, padded on the right: tokens_NS and lengths_N (int64), and of pairs token types and labels.

    token_types_NS: int64, 1 on the second segment, else 0. is_next_N: int64, 1 where it follows the first one, else 0.
    """

    tokens_NS: np.ndarray
    lengths_N: np.ndarray
    token_types_NS: np.ndarray | None = None
    is_next_N: np.ndarray | None = None


def collect_rows(parts: Iterable[tuple[np.ndarray, Rows]], num_rows: int) -> Rows:
    """Rows put together from parts of the same width: each with the places (bool, num_rows) that it fills."""
    whole = None
    for here, part in parts:
        if whole is None:
            shapes = ((num_rows, *array.shape[1:]) if array is not None else None for array in part)
            whole = Rows(*(None if shape is None else np.empty(shape, np.int64) for shape in shapes))
        for array, part_array in zip(whole, part):
            if array is not None:
                array[here] = part_array
    return whole


@dataclass(frozen=True)
class BlockSizes:
    """How much a corpus' blocks hold, <s> and </s> included, padding not: in this format, and in FULL-SENTENCES."""

    num_blocks: int
    num_tokens: int
    num_full_blocks: int
    num_full_tokens: int

    @property
    def mean(self) -> float:
        """Tokens of a block of this format."""
        return self.num_tokens / self.num_blocks

    @property
    def full_mean(self) -> float:
        """Tokens of a block of FULL-SENTENCES."""
        return self.num_full_tokens / self.num_full_blocks

    def to_array(self) -> np.ndarray:
        """As four whole numbers, to be stored."""
        return np.array([self.num_blocks, self.num_tokens, self.num_full_blocks, self.num_full_tokens], np.int64)


class Packing(Protocol):
    """The blocks of one corpus in one format; every answer is a pure function of its arguments, in constant time.

    has_fixed_width: whether blocks are to be padded to sequence_length, rather than to the longest of their micro-batch.
    """

    sequence_length: int
    has_fixed_width: bool
    sizes: BlockSizes

    def __len__(self) -> int:
        """The number of blocks."""

    def lengths(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """Tokens of each block, without looking at them: int64. key, epochs_N: what chance depends on beside the block."""

    def rows(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int, width: int) -> Rows:
        """The blocks, padded to `width`, which none of them exceeds."""


def copy_spans(source: np.ndarray, target: np.ndarray, from_K: np.ndarray, to_K: np.ndarray, lengths_K: np.ndarray) -> None:
    """Copy K spans of a vector into places of another one, in place; int64 starts and lengths.

    source: what can be sliced, or has a copy_spans of its own.
    """
    if len(lengths_K) == 0:
        return
    if hasattr(source, "copy_spans"):
        source.copy_spans(target, from_K, to_K, lengths_K)
        return
    if lengths_K.mean() >= _SHORT_SPAN or not isinstance(source, np.ndarray):
        for start, place, length in zip(from_K.tolist(), to_K.tolist(), lengths_K.tolist()):
            target[place : place + length] = source[start : start + length]
        return
    before_K = np.cumsum(lengths_K) - lengths_K
    number = np.arange(int(lengths_K.sum()))
    target[number + np.repeat(to_K - before_K, lengths_K)] = source[number + np.repeat(from_K - before_K, lengths_K)]
