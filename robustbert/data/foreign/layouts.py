"""The index files of Megatron-LM and fairseq: which one a PREFIX.idx is, and its sequences' lengths and places.

Three layouts, all little endian and unaligned (megatron-core 0.16.1 `datasets/indexed_dataset.py`; fairseq 0.12.2
`data/indexed_dataset.py`):
megatron        MMIDIDX, version, dtype code, N, D; lengths int32[N], byte offsets int64[N], document bounds int64[D], and of
                multimodal data a mode int8[N]
fairseq mmap    MMIDIDX, version, dtype code, N; lengths int32[N], byte offsets int64[N]
fairseq cached  TNTIDX (--dataset-impl lazy or cached), version, dtype code, item size, N, N; int64: dimension offsets [N + 1],
                offsets in items [N + 1], lengths [N]. Every id is one higher than in the dictionary (a leftover of Lua).
The first two have the same magic and version, and only the file's size tells them apart: neither library reads the other's.
"""

import os
import struct
from pathlib import Path

import numpy as np

from robustbert.data.corpus import INDEX_VERSION, MAGIC, corpus_file
from robustbert.data.errors import DataError

MEGATRON, FAIRSEQ, FAIRSEQ_CACHED = "Megatron-LM", "fairseq", "fairseq (cached)"
_CACHED_MAGIC, _HUFFMAN_MAGIC = b"TNTIDX\x00\x00", b"HUFFIDX\x00\x00"
_MMAP_HEADER = struct.Struct("<9sQBQ")  # magic, version, dtype code, number of sequences; megatron's document count follows
_CACHED_HEADER = struct.Struct("<8sQQQQQ")
_NO_IDS = "floating-point numbers"
_MEGATRON_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: _NO_IDS, 7: _NO_IDS, 8: "uint16"}
_FAIRSEQ_DTYPES = _MEGATRON_DTYPES | {9: "uint32", 10: "uint64"}  # its codes 6 and 7 are both float64
_LARGE = 1 << 16  # windows from this size on are read, not mapped: a pass over the file leaves no pages in memory
_MOST_READ = 1 << 22  # sequences read to look up some of them


class ForeignIndex:
    """PREFIX.idx and the size of PREFIX.bin, opened and checked as far as sizes tell; nothing is read but the header.

    kind: one of the names above. dtype: of the ids in the .bin. num_tokens: items of the .bin, frames included.
    id_shift: what every stored id is above its number in the dictionary. document_bounds: int64, mapped, the number of the
    first sequence of each document, and at the end num_sequences; None where the format has none.
    DataError: a file is missing, cut off, of another format, or holds no ids.
    """

    def __init__(self, prefix: str | Path):
        self.prefix = Path(prefix)
        self.path, self.bin_path = corpus_file(prefix, "idx"), corpus_file(prefix, "bin")
        self._check_pair()
        self.idx_size, self.bin_size = self.path.stat().st_size, self.bin_path.stat().st_size
        head = _head(self.path)
        self.id_shift = 0
        self.document_bounds, self.sequence_modes = None, None
        if head.startswith(_CACHED_MAGIC):
            self._open_cached(head)
        elif head.startswith(MAGIC):
            self._open_mmap(head)
        else:
            self._refuse_magic(head)
        if self.num_sequences == 0:
            raise DataError(f"{self.path}: holds no sequence; its data are empty")
        self._check_end()

    def lengths(self, start: int, stop: int) -> np.ndarray:
        """Items of the sequences start .. stop - 1, frames included: int64, a copy."""
        return self._window(self._lengths, start, stop, self._lengths_at)

    def starts(self, start: int, stop: int) -> np.ndarray:
        """Where the sequences start .. stop - 1 start in the .bin, in items: int64, a copy."""
        return self._window(self._places, start, stop, self._places_at) // self._place_unit

    def starts_at(self, numbers: np.ndarray) -> np.ndarray:
        """Where the sequences of these numbers start in the .bin, in items: int64; num_sequences stands for the end."""
        known = np.minimum(numbers, self.num_sequences - 1)
        return np.where(numbers < self.num_sequences, self._places[known] // self._place_unit, self.num_tokens)

    def starts_in_order(self, numbers: np.ndarray) -> np.ndarray:
        """The same of ascending numbers, however many: long stretches of the file are read and not left in memory."""
        if len(numbers) >= _LARGE:
            return np.concatenate([self.starts_in_order(numbers[i : i + _LARGE - 1]) for i in range(0, len(numbers), _LARGE - 1)])
        if len(numbers) and _LARGE < numbers[-1] - numbers[0] < _MOST_READ:
            first = int(numbers[0])
            return np.append(self.starts(first, int(numbers[-1]) + 1), self.num_tokens)[numbers - first]
        return self.starts_at(numbers)

    def items(self) -> np.ndarray:
        """The .bin as one vector, mapped."""
        if self.bin_size == 0:
            return np.empty(0, self.dtype)
        return np.frombuffer(memoryview(np.memmap(self.bin_path, np.uint8, mode="r")), self.dtype)

    def _window(self, vector: np.ndarray, start: int, stop: int, vector_at: int) -> np.ndarray:
        stop = min(stop, self.num_sequences)
        if stop - start < _LARGE:
            return vector[start:stop].astype(np.int64)
        read = np.fromfile(self.path, vector.dtype, stop - start, offset=vector_at + start * vector.itemsize)
        return read.astype(np.int64, copy=False)

    def _open_mmap(self, head: bytes) -> None:
        if len(head) < _MMAP_HEADER.size:
            raise DataError(f"{self.path}: cut off after {len(head)} bytes; copy it again")
        _, version, code, count = _MMAP_HEADER.unpack(head[: _MMAP_HEADER.size])
        if version != INDEX_VERSION:
            raise DataError(f"{self.path}: version {version} of the MMIDIDX format; only version {INDEX_VERSION} is known")
        self.num_sequences, at = count, _MMAP_HEADER.size
        if self.idx_size == at + 12 * count:
            self.kind, num_bounds, num_modes = FAIRSEQ, 0, 0
        else:
            num_bounds = int.from_bytes(head[at : at + 8], "little")
            at += 8
            num_modes = self.idx_size - (at + 12 * count + 8 * num_bounds)
            if num_modes not in (0, count) or num_bounds == 0:
                raise DataError(
                    f"{self.path}: cut off or damaged, it has {self.idx_size} bytes; {count} sequences take "
                    f"{_MMAP_HEADER.size + 12 * count} as fairseq's, {at + 12 * count + 8 * num_bounds} as Megatron-LM's with "
                    f"{num_bounds} document bounds; copy it again"
                )
            self.kind = MEGATRON
        self._set_dtype(code, _MEGATRON_DTYPES if self.kind == MEGATRON else _FAIRSEQ_DTYPES)
        self._place_unit = self.dtype.itemsize
        self._map((np.int32, count, at), (np.int64, count, at + 4 * count))
        if self.kind == MEGATRON:
            content = self._content
            self.document_bounds = np.frombuffer(content, np.int64, num_bounds, at + 12 * count)
            if num_modes:
                self.sequence_modes = np.frombuffer(content, np.int8, count, at + 12 * count + 8 * num_bounds)
            first, last = self.document_bounds[[0, -1]].tolist()
            if first != 0 or last != count:
                raise DataError(
                    f"{self.path}: its documents reach from sequence {first} to {last}, it has {count}; whoever wrote it did not "
                    "end its documents (IndexedDatasetBuilder.end_document), or it is damaged"
                )

    def _open_cached(self, head: bytes) -> None:
        if len(head) < _CACHED_HEADER.size:
            raise DataError(f"{self.path}: cut off after {len(head)} bytes; copy it again")
        _, version, code, item_size, count, num_sizes = _CACHED_HEADER.unpack(head[: _CACHED_HEADER.size])
        at = _CACHED_HEADER.size
        expected = at + 8 * (2 * (count + 1) + num_sizes)
        if version != 1 or self.idx_size != expected or num_sizes != count:
            raise DataError(
                f"{self.path}: fairseq's TNTIDX format, version {version}, {self.idx_size} bytes of {expected}, {num_sizes} sizes "
                f"for {count} sequences; damaged, or not of text; make it again with fairseq-preprocess --dataset-impl mmap"
            )
        self.kind, self.num_sequences, self.id_shift = FAIRSEQ_CACHED, count, 1
        self._set_dtype(code, _FAIRSEQ_DTYPES)
        if item_size != self.dtype.itemsize:
            raise DataError(f"{self.path}: items of {item_size} bytes, but its dtype {self.dtype} has {self.dtype.itemsize}")
        self._place_unit = 1
        self._map((np.int64, count, at + 16 * (count + 1)), (np.int64, count, at + 8 * (count + 1)))

    def _map(self, lengths: tuple, places: tuple) -> None:
        self._content = memoryview(np.memmap(self.path, np.uint8, mode="r"))
        self._lengths, self._places = (np.frombuffer(self._content, *where) for where in (lengths, places))
        self._lengths_at, self._places_at = lengths[2], places[2]

    def _set_dtype(self, code: int, names: dict[int, str]) -> None:
        name = names.get(code)
        if name is None or name == _NO_IDS:
            raise DataError(
                f"{self.path}: {self.kind}'s index, dtype code {code}: {name or 'unknown'}; token ids are whole numbers, so it was "
                "not made of text, or it is damaged"
            )
        self.dtype = np.dtype(name)

    def _check_pair(self) -> None:
        here = [path for path in (self.path, self.bin_path) if path.is_file()]
        if len(here) == 1:
            missing = self.bin_path if here[0] == self.path else self.path
            raise DataError(f"{missing}: missing, {here[0].name} is there; indexed data are both files, copy it too")
        if not here:
            raise DataError(f"{self.prefix}: no {self.path.name} and {self.bin_path.name}; check the path (without an ending)")

    def _check_end(self) -> None:
        """The last sequence ends where the .bin ends."""
        size = self.dtype.itemsize
        start = int(self._places[-1]) // self._place_unit
        self.num_tokens = start + int(self._lengths[-1])
        expected = self.num_tokens * size
        if self.bin_size != expected:
            state = "cut off" if self.bin_size < expected else "too long"
            raise DataError(
                f"{self.bin_path}: {state} or of another .idx: it has {self.bin_size} bytes, {self.path.name} "
                f"({self.num_sequences} sequences, {self.dtype}) describes {expected}; copy both files again"
            )

    def _refuse_magic(self, head: bytes) -> None:
        if head.startswith(_HUFFMAN_MAGIC):
            raise DataError(
                f"{self.path}: fairseq's --dataset-impl huffman, which is compressed; make it again with fairseq-preprocess "
                "--dataset-impl mmap"
            )
        if _head(self.bin_path).startswith((MAGIC, _CACHED_MAGIC)):
            raise DataError(f"{self.prefix}: its .bin is an index and its .idx is not: the two names are exchanged")
        raise DataError(
            f"{self.path}: neither Megatron-LM's index nor fairseq's (it starts with {head[:9]!r}); it is damaged, or another format"
        )


def looks_foreign(prefix: str | Path) -> bool:
    """Whether a .bin or .idx that tools/preprocess did not write, and is not about to write, lies at the prefix."""
    if any(corpus_file(prefix, f"{ending}.partial").exists() for ending in ("bin", "idx", "json")):
        return False
    return any(corpus_file(prefix, ending).is_file() for ending in ("bin", "idx"))


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({os.strerror(error.errno)}); check its permissions") from None
