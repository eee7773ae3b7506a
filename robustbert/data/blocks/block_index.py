"""The file of a packing, PREFIX.FORMAT-LENGTH.npy: whole numbers in a few arrays, read by memory map.

Its content is one int64 vector: version, fingerprint of the corpus, number of arrays, the length of each, and the arrays.
"""

import os
import secrets
from pathlib import Path

import numpy as np

_VERSION = 2
_NUM_FIXED_ITEMS = 3  # version, fingerprint, number of arrays


def read_block_index(path: Path, fingerprint: int) -> list[np.ndarray] | None:
    """The arrays (int64) of a file; None where it is absent, damaged, or of another corpus or version."""
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if content.dtype != np.int64 or content.ndim != 1 or len(content) < _NUM_FIXED_ITEMS:
        return None
    version, found, num_arrays = content[:_NUM_FIXED_ITEMS].tolist()
    if version != _VERSION or found != fingerprint:
        return None
    at = _NUM_FIXED_ITEMS + num_arrays
    sizes = content[_NUM_FIXED_ITEMS:at].tolist()
    if len(content) != at + sum(sizes):
        return None
    content = content.view(np.ndarray)  # slicing numpy's memmap class costs several times as much
    ends = (at + np.cumsum(sizes)).tolist()
    return [content[end - size : end] for size, end in zip(sizes, ends)]


def write_block_index(path: Path, fingerprint: int, arrays: list[np.ndarray]) -> None:
    """Write int64 vectors for read_block_index; the file appears whole or, where it cannot be written, not at all."""
    header = np.array([_VERSION, fingerprint, len(arrays), *map(len, arrays)], np.int64)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "wb") as file:
            shape = (len(header) + sum(map(len, arrays)),)
            np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": shape})
            for array in (header, *arrays):
                assert array.dtype == np.int64 and array.ndim == 1, (array.dtype, array.ndim)
                array.tofile(file)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)  # a read-only folder, or a full disk: the blocks stay in memory
