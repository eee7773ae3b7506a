"""One process' file of a checkpoint: a copy of the state that training may run away from, and writing it at the disk's speed."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

_CHUNK_BYTES = 16 * 2**20


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
        view = memoryview(self._buffer.numpy()).cast("B")
        return [view[start : start + _CHUNK_BYTES] for start in range(0, len(view), _CHUNK_BYTES)]

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
        if tensor.numel():
            yield memoryview(tensor.detach().cpu().numpy()).cast("B")


def write_file(path: Path, chunks: Iterable[memoryview]) -> dict:
    """Write a file and flush it to disk; returns {"bytes", "sha256"}. Hashing goes on beside the writing."""
    digest, num_bytes, hashing = hashlib.sha256(), 0, []
    with open(path, "wb", buffering=0) as file, ThreadPoolExecutor(1) as hasher:
        for chunk in chunks:
            hashing.append(hasher.submit(digest.update, chunk))
            num_bytes += _write_all(file, chunk)
            if len(hashing) > 1:
                hashing.pop(0).result()  # no more than two chunks are held
        os.fsync(file.fileno())
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}


def _write_all(file, chunk: memoryview) -> int:
    written = 0
    while written < len(chunk):
        written += file.write(chunk[written:])
    return written
