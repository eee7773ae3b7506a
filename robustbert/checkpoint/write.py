"""One process' file of a checkpoint: a copy of the state that training may run away from, and writing it at the disk's speed."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import xxhash

from robustbert.checkpoint.manifest import CHECKSUM

_CHUNK_BYTES = 4 * 2**20  # small enough that what is hashed is still in the cache when it is written
_FLUSH_BYTES = 64 * 2**20  # the disk begins with what is there instead of waiting for the end


class HostCopy:
    """Host memory for this process' tensors, kept from save to save: only the first one pays for its pages."""

    def __init__(self, pin: bool):
        """pin: page-locked, so that a GPU copies into it at full speed."""
        self._pin = pin
        self._buffer = torch.empty(0, dtype=torch.float32)

    def take(self, tensors: list[torch.Tensor]) -> list[memoryview]:
        """Copy flat fp32 tensors, one after the other; returns the copy in chunks. Valid until the next call."""
        num_elements = sum(tensor.numel() for tensor in tensors)
        if self._buffer.numel() != num_elements:
            self._buffer = torch.empty(num_elements, dtype=torch.float32, pin_memory=self._pin)
        torch.cat(tensors, out=self._buffer) if self._is_on_cpu(tensors) else self._copy_from_gpu(tensors)
        return list(_cut(self._buffer))

    def _is_on_cpu(self, tensors: list[torch.Tensor]) -> bool:
        return all(tensor.device.type == "cpu" for tensor in tensors)

    def _copy_from_gpu(self, tensors: list[torch.Tensor]) -> None:
        position = 0
        for tensor in tensors:
            self._buffer[position : position + tensor.numel()].copy_(tensor, non_blocking=True)
            position += tensor.numel()
        torch.cuda.synchronize()


def chunks_of(tensors: list[torch.Tensor]) -> Iterable[memoryview]:
    """The tensors' own memory (on a GPU a copy, one at a time), for a save that training waits for."""
    for tensor in tensors:
        yield from _cut(tensor.detach().cpu())


def _cut(tensor: torch.Tensor) -> Iterator[memoryview]:
    view = memoryview(tensor.numpy()).cast("B") if tensor.numel() else memoryview(b"")
    return (view[start : start + _CHUNK_BYTES] for start in range(0, len(view), _CHUNK_BYTES))


def write_file(path: Path, chunks: Iterable[memoryview]) -> dict:
    """Write a file and flush it to disk; returns {"bytes", CHECKSUM}."""
    digest, num_bytes, begun = xxhash.xxh3_128(), 0, 0
    with open(path, "wb", buffering=0) as file:
        for chunk in chunks:
            digest.update(chunk)
            num_bytes += _write_all(file, chunk)
            if num_bytes - begun >= _FLUSH_BYTES:
                _begin_flush(file, begun, num_bytes)
                begun = num_bytes
        os.fsync(file.fileno())
    return {"bytes": num_bytes, CHECKSUM: digest.hexdigest()}


def _write_all(file, chunk: memoryview) -> int:
    written = 0
    while written < len(chunk):
        written += file.write(chunk[written:])
    return written


def _begin_flush(file, start: int, stop: int) -> None:
    # Advice, no order: Linux starts writing these pages, and gives them up where they are clean.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), start, stop - start, os.POSIX_FADV_DONTNEED)
