"""Documents that came before, or nearly so: MinHash signatures of tokens, and a memory of fixed size.

Near duplicates are found as FineWeb does (Penedo et al., 2024): 112 minima over shingles of tokens in 14 bands of 8; two
documents whose shingles overlap by a share J (Jaccard) meet in a band with probability 1 - (1 - J^8)^14: 0.05 for
J = 0.5, 0.56 for 0.7, 0.92 for 0.8, above 0.999 for 0.9. Everything is stateless 64-bit hashing.
"""

import os
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.hashing import GOLDEN, hash_of, mix64

KINDS = ("exact", "near")
_SHINGLE_TOKENS = 5
_NUM_BANDS, _ROWS_PER_BAND = 14, 8
_SHINGLES_AT_ONCE = 1 << 14
_SEEDS = mix64(np.arange(1, _NUM_BANDS * _ROWS_PER_BAND + 1, dtype=np.uint64) * GOLDEN) | np.uint64(1)
_TABLE_SLOTS = 1 << 24  # of each of two tables: 128 MB


def duplicate_keys(kind: str, tokens: np.ndarray, text_digest: bytes) -> np.ndarray:
    """What a document is known by: uint64, the hash of its text first, then for kind "near" one a band.

    tokens: the ids of the document, one after another. One of fewer tokens than a shingle has only the first.
    """
    exact = np.frombuffer(text_digest[:8], np.uint64)
    num_shingles = len(tokens) - _SHINGLE_TOKENS + 1
    if kind == "exact" or num_shingles < 1:
        return exact
    shingles = np.zeros(num_shingles, np.uint64)
    for i in range(_SHINGLE_TOKENS):
        shingles = mix64(shingles * GOLDEN + tokens[i : i + num_shingles].astype(np.uint64) + GOLDEN)
    shingles = np.unique(shingles)
    minima = np.full(len(_SEEDS), np.uint64(2**64 - 1))
    for start in range(0, len(shingles), _SHINGLES_AT_ONCE):
        part = shingles[start : start + _SHINGLES_AT_ONCE]
        for i, seed in enumerate(_SEEDS):  # the upper bits of a product with an odd number are mixed well enough
            minima[i] = min(minima[i], (part * seed).min())
    bands = minima.reshape(_NUM_BANDS, _ROWS_PER_BAND).T
    return np.concatenate([exact, hash_of(np.arange(_NUM_BANDS), *bands)])


class SeenDocuments:
    """Which documents came before, in fixed memory: the newest half a million or more (near), or eight million (exact).

    path: where the keys of what was kept are written, for a run that goes on; num_keys: as many are read again.
    Two tables of open addressing; when the newer one is half full the older one is forgotten.
    """

    def __init__(self, path: Path, num_keys: int = 0):
        self._slots = _TABLE_SLOTS
        self._newer, self._older = self._table(), self._table()
        self._num_in_newer = 0
        self.num_keys = 0
        self._file = open(path, "ab+")
        if self._file.seek(0, 2) < num_keys * 8:
            self._file.close()
            raise DataError(
                f"{path}: is shorter than it was; delete the .journal beside it to prepare the corpus from the start"
            )
        self._file.truncate(num_keys * 8)
        self._file.seek(0)
        while content := self._file.read(1 << 20):
            for key in np.frombuffer(content, np.uint64).tolist():
                self._insert(key)
        self.num_keys = num_keys

    def check(self, keys: np.ndarray) -> str | None:
        """The kind of duplicate that a document with these keys is; None where it is new, and remembered from now on."""
        values = [key or 1 for key in keys.tolist()]
        if self._holds(values[0]):
            return "exact"
        if any(map(self._holds, values[1:])):
            return "near"
        for value in values:
            self._insert(value)
        self._file.write(np.array(values, np.uint64).tobytes())
        self.num_keys += len(values)
        return None

    def flush(self) -> None:
        """Bring the keys to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it stays."""
        self._file.close()

    def _table(self) -> memoryview:
        # Slices of a memoryview are plain ints, several times as fast to reach as an array's; untouched pages take no memory.
        return memoryview(np.zeros(self._slots, np.uint64))

    def _holds(self, key: int) -> bool:
        return self._newer[self._place(self._newer, key)] == key or self._older[self._place(self._older, key)] == key

    def _insert(self, key: int) -> None:
        place = self._place(self._newer, key)
        if self._newer[place] == key:
            return
        if 2 * self._num_in_newer >= self._slots:
            self._older, self._newer, self._num_in_newer = self._newer, self._table(), 0
            place = self._place(self._newer, key)
        self._newer[place] = key
        self._num_in_newer += 1

    def _place(self, table: memoryview, key: int) -> int:
        """Where the key stands in a table, or the empty slot where it would."""
        mask = self._slots - 1
        place = key & mask
        while (found := table[place]) and found != key:
            place = (place + 1) & mask
        return place
