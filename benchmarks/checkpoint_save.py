#!/usr/bin/env python3
"""How long training stands still for a checkpoint, and how fast it is written, beside plain writes and torch's own checkpoints.

One process, fp32 weights and moments of a preset; every way to save once a round, in turn; medians and their ratios.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402

from benchmarks.records import write_record  # noqa: E402
from robustbert.checkpoint.pieces import own_pieces  # noqa: E402
from robustbert.checkpoint.saving import CheckpointWriter, Snapshot  # noqa: E402
from robustbert.config import CheckpointConfig, ModelConfig, OptimConfig, ParallelConfig  # noqa: E402
from robustbert.device import Device  # noqa: E402
from robustbert.job import Job  # noqa: E402
from robustbert.model.build import build_model  # noqa: E402
from robustbert.optim.build import build_optimizer  # noqa: E402
from robustbert.parallel.data_parallel import build_data_parallel  # noqa: E402
from robustbert.parallel.mesh import open_mesh  # noqa: E402
from robustbert.run_directory import RunDirectory  # noqa: E402

_EXAMPLE = """example:
  benchmarks/checkpoint_save.py --folder /scratch/bench --rounds 5 --record benchmarks/records/2026-01-31_checkpoint_save.md
"""
PLAIN, SYNC, ASYNC_STALL, ASYNC = "plain writes", "robustbert, synchronous", "robustbert, loop stands still", "robustbert, in all"
PLAIN_HASHED = "plain writes, then sha256 of the file"
DCP, DCP_STALL, DCP_ASYNC = "torch DCP, synchronous", "torch DCP async, loop stands still", "torch DCP async, in all"


def plain_writes(path: Path, tensors: list[torch.Tensor]) -> float:
    """Seconds for one file with the same bytes, flushed: what the disk can do."""
    started = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for tensor in tensors:
            view = memoryview(tensor.numpy()).cast("B")
            while view:
                view = view[file.write(view[: 16 * 2**20]) :]
        os.fsync(file.fileno())
    return time.perf_counter() - started


def save(writer: CheckpointWriter, step: int, model, optimizer, mesh) -> tuple[float, float]:
    """(seconds until training may go on, seconds until the checkpoint is committed)."""
    started = time.perf_counter()
    snapshot = Snapshot({"step": step}, {}, optimizer.scalars(), started)
    writer.start(snapshot, own_pieces(model, optimizer, mesh))
    stalled = time.perf_counter() - started
    assert writer.wait(), "the checkpoint was not committed"
    return stalled, time.perf_counter() - started


def one_round(number: int, folder: Path, writers: dict, model, optimizer, mesh, times: dict) -> int:
    """Every way to save once, in turn, each to its own empty folder; returns the bytes of the state."""
    pieces = own_pieces(model, optimizer, mesh)
    tensors = [tensor.detach() for _, tensor in pieces]
    state = {f"{piece.shard.name}.{piece.kind}": tensor for (piece, _), tensor in zip(pieces, tensors)}
    seconds = plain_writes(folder / "plain", tensors)
    times[PLAIN].append(seconds)
    started = time.perf_counter()
    with open(folder / "plain", "rb") as file:
        hashlib.file_digest(file, "sha256")
    times[PLAIN_HASHED].append(seconds + time.perf_counter() - started)
    (folder / "plain").unlink()
    _, seconds = save(writers["sync"], number, model, optimizer, mesh)
    times[SYNC].append(seconds)
    shutil.rmtree(folder / "checkpoints")
    stalled, seconds = save(writers["async"], number, model, optimizer, mesh)
    times[ASYNC_STALL].append(stalled)
    times[ASYNC].append(seconds)
    shutil.rmtree(folder / "checkpoints")
    started = time.perf_counter()
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder / "dcp", sync_files=True))
    times[DCP].append(time.perf_counter() - started)
    shutil.rmtree(folder / "dcp")
    started = time.perf_counter()
    future = dcp.async_save(state, storage_writer=dcp.FileSystemWriter(folder / "dcp", sync_files=True))
    times[DCP_STALL].append(time.perf_counter() - started)
    future.result()
    times[DCP_ASYNC].append(time.perf_counter() - started)
    shutil.rmtree(folder / "dcp")
    return sum(tensor.numel() * 4 for tensor in tensors)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--preset", default="roberta-base", help="its state (weights, moments) is 12 bytes a parameter")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the figures down")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    config = ModelConfig(preset=options.preset, vocab_size=50265)
    device, parallel = Device.detect(Job()), ParallelConfig()
    with device.joined(Job(), 600) as store, open_mesh(device, parallel) as mesh:
        model = build_data_parallel(build_model(config, parallel, mesh, seed=1), parallel, mesh)
        optimizer = build_optimizer(OptimConfig(), parallel, model, mesh, "fp32", total_steps=10)
        run = RunDirectory(options.folder)
        writers = {
            name: CheckpointWriter(CheckpointConfig(asynchronous=name == "async"), run, mesh, store)
            for name in ("sync", "async")
        }
        times = {name: [] for name in (PLAIN, PLAIN_HASHED, SYNC, ASYNC_STALL, ASYNC, DCP, DCP_STALL, DCP_ASYNC)}
        for number in range(options.rounds + 1):
            num_bytes = one_round(number, options.folder, writers, model, optimizer, mesh, times)
            print(f"round {number}: " + "  ".join(f"{values[-1]:.2f}" for values in times.values()), flush=True)
    lines = [f"{num_bytes / 1e9:.2f} GB, {options.rounds} rounds after a first one that warms up (its files are new to the disk)"]
    for name, values in times.items():
        median = statistics.median(values[1:])
        lines.append(f"{name:38} first {values[0]:6.2f} s   median {median:6.2f} s   {num_bytes / 1e9 / median:6.2f} GB/s")
    stall = statistics.median(a / s for a, s in zip(times[ASYNC_STALL][1:], times[SYNC][1:]))
    rate = statistics.median(p / a for p, a in zip(times[PLAIN][1:], times[ASYNC][1:]))
    lines.append(f"the loop stands still / synchronous save: {stall:.3f} (bar: below 0.25)")
    lines.append(f"rate of an asynchronous save in all / plain writes: {rate:.2f} (bar: 0.7)")
    print("\n" + "\n".join(lines))
    shutil.rmtree(options.folder)
    if options.record:
        command = f"benchmarks/checkpoint_save.py --folder FOLDER --rounds {options.rounds} --preset {options.preset}"
        write_record(options.record, "Saving a checkpoint", command, "", ("torch", "megatron-core", "xxhash"), lines)


if __name__ == "__main__":
    main()
