"""Writers of other libraries' indexed data, byte by byte: quick, and able to write what those libraries would not.

test_foreign_libraries.py compares them with the libraries' own files.
"""

import struct
from pathlib import Path

import numpy as np

MEGATRON_CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}
FAIRSEQ_CODES = {k: v for k, v in MEGATRON_CODES.items() if k != "float32"} | {"uint32": 9, "uint64": 10}


def write_megatron(prefix: Path, documents: list[list[list[int]]], dtype="uint16", bounds=None, modes=None) -> Path:
    """Documents are lists of sequences, lists of ids; bounds, modes: in place of what follows from them."""
    sequences = [sequence for document in documents for sequence in document]
    bounds = np.cumsum([0, *map(len, documents)]) if bounds is None else np.array(bounds)
    header = struct.pack("<9sQBQQ", b"MMIDIDX\x00\x00", 1, MEGATRON_CODES[dtype], len(sequences), len(bounds))
    tail = bounds.astype(np.int64).tobytes() + (b"" if modes is None else np.array(modes, np.int8).tobytes())
    return _write(prefix, sequences, dtype, header, tail)


def write_fairseq(prefix: Path, lines: list[list[int]], dtype="uint16", code=None) -> Path:
    """Lines are lists of ids, with their </s>."""
    header = struct.pack("<9sQBQ", b"MMIDIDX\x00\x00", 1, code or FAIRSEQ_CODES[dtype], len(lines))
    return _write(prefix, lines, dtype, header, b"")


def write_cached(prefix: Path, lines: list[list[int]], dtype="int32") -> Path:
    """fairseq's --dataset-impl lazy and cached: every id is one higher."""
    Path(f"{prefix}.bin").write_bytes(np.array([id_ + 1 for line in lines for id_ in line], dtype).tobytes())
    lengths, size = np.array(list(map(len, lines)), np.int64), np.dtype(dtype).itemsize
    header = struct.pack("<8sQQQQQ", b"TNTIDX\x00\x00", 1, FAIRSEQ_CODES[dtype], size, len(lines), len(lines))
    vectors = np.arange(len(lines) + 1), np.append(0, np.cumsum(lengths)), lengths
    Path(f"{prefix}.idx").write_bytes(header + b"".join(vector.astype(np.int64).tobytes() for vector in vectors))
    return Path(prefix)


def as_lines(documents: list[list[list[int]]], eos_id: int) -> list[list[int]]:
    """Documents as fairseq has them: every sequence ends with </s>, and a line of it alone ends a document."""
    return [[*sequence, eos_id] for document in documents for sequence in [*document, []]]


def write_dictionary(folder: Path, names: list[str]) -> None:
    """fairseq's dict.txt."""
    (folder / "dict.txt").write_text("".join(f"{name} 1\n" for name in names), encoding="utf-8")


def _write(prefix: Path, sequences: list[list[int]], dtype: str, header: bytes, tail: bytes) -> Path:
    Path(f"{prefix}.bin").write_bytes(np.array([id_ for sequence in sequences for id_ in sequence], dtype).tobytes())
    lengths = np.array(list(map(len, sequences)), np.int32)
    places = (np.cumsum(lengths, dtype=np.int64) - lengths) * np.dtype(dtype).itemsize
    Path(f"{prefix}.idx").write_bytes(header + lengths.tobytes() + places.tobytes() + tail)
    return Path(prefix)
