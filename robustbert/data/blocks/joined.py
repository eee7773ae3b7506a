"""A corpus that was prepared in parts, as one: its blocks are those of the parts, one part after another."""

from functools import reduce
from operator import add

import numpy as np

from robustbert.data.blocks.rows import BlockSizes, Packing, Rows, collect_rows
from robustbert.data.hashing import hash_of


def join_packings(parts: list[Packing]) -> Packing:
    """One packing of all the parts' blocks; a single part is itself."""
    return parts[0] if len(parts) == 1 else JoinedPacking(parts)


class JoinedPacking:
    """See Packing. A part chooses its pairs among its own documents."""

    def __init__(self, parts: list[Packing]):
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self._starts = self._ends - [len(part) for part in parts]
        self.sequence_length, self.has_fixed_width = parts[0].sequence_length, parts[0].has_fixed_width
        self.sizes = BlockSizes(*reduce(add, (part.sizes.to_array() for part in parts)).tolist())

    def __len__(self) -> int:
        return int(self._ends[-1])

    def lengths(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int) -> np.ndarray:
        """See Packing."""
        lengths_N = np.empty(len(blocks_N), np.int64)
        for here, part, own_blocks, own_key in self._by_part(blocks_N, key):
            lengths_N[here] = part.lengths(own_blocks, epochs_N[here], own_key)
        return lengths_N

    def rows(self, blocks_N: np.ndarray, epochs_N: np.ndarray, key: int, width: int) -> Rows:
        """See Packing."""
        parts = (
            (here, part.rows(own_blocks, epochs_N[here], own_key, width))
            for here, part, own_blocks, own_key in self._by_part(blocks_N, key)
        )
        return collect_rows(parts, len(blocks_N))

    def _by_part(self, blocks_N: np.ndarray, key: int):
        part_N = np.searchsorted(self._ends, blocks_N, side="right")
        for number in np.unique(part_N).tolist():
            here = part_N == number
            yield here, self._parts[number], blocks_N[here] - self._starts[number], int(hash_of(key, number)[0])
