"""Writing a checkpoint behind the training: every process writes its file, all agree that all are there, the main one commits.

The processes agree through the job's key-value store, not through collectives: those belong to training, which goes on meanwhile.
"""

import json
import os
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch

from robustbert.checkpoint.index import INDEX, dump_index, place, to_records
from robustbert.checkpoint.manifest import Manifest, commit, set_aside, step_folder, write_text_file
from robustbert.checkpoint.pieces import Piece
from robustbert.checkpoint.retention import remove_old
from robustbert.checkpoint.write import HostCopy, chunks_of, write_file
from robustbert.config import CheckpointConfig
from robustbert.json_lines import say_error
from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory

FIRST_PAUSE_S = 1.0  # before a failed write is tried again; doubled every time
_FOREVER = timedelta(days=30)  # a process that never answers is dead, and then the whole job ends
_COMMITTED, _RETRY, _GIVEN_UP = "committed", "retry", "given up"
STAGING = ".staging_"


@dataclass(frozen=True)
class Snapshot:
    """What is to be saved, as it was at one step."""

    state: dict  # TrainState
    run_config: dict
    optimizer_scalars: dict
    started_at: float  # time.perf_counter() when the loop stopped for it

    @property
    def step(self) -> int:
        return self.state["step"]


class CheckpointWriter:
    """Saves one snapshot at a time, behind the training where checkpoint.asynchronous is set."""

    def __init__(self, config: CheckpointConfig, run: RunDirectory, mesh: Mesh, store: torch.distributed.Store):
        self._config = config
        self._run = run
        self._mesh = mesh
        # A client of its own: one that waits keeps others of the same client waiting.
        self._store = torch.distributed.PrefixStore("checkpoints", store.clone())
        self._copy = HostCopy(pin=mesh.device.is_cuda)
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future | None = None
        self._count = 0

    def start(self, snapshot: Snapshot, pieces: list[tuple[Piece, torch.Tensor]]) -> None:
        """Save; returns once the tensors may change again. Waits for a save that is still under way."""
        self.wait()
        tensors = [tensor for _, tensor in pieces]
        chunks = self._copy.take(tensors) if self._config.asynchronous else None
        stalled_s = time.perf_counter() - snapshot.started_at
        self._count += 1
        self._pending = self._thread.submit(
            self._save, snapshot, [piece for piece, _ in pieces], chunks, tensors, stalled_s, self._count
        )
        if not self._config.asynchronous:
            self.wait()

    def wait(self) -> bool:
        """Until the save that is under way has ended; whether the last one was committed. Raises what broke in it."""
        if self._pending is None:
            return True
        return self._pending.result()

    def _save(self, snapshot: Snapshot, pieces, chunks, tensors, stalled_s: float, number: int) -> bool:
        """Write until it is committed or given up; the same answer on every process."""
        name = f"rank_{self._mesh.rank:05d}.bin"
        staging = self._run.checkpoints / f"{STAGING}{step_folder(self._run.checkpoints, snapshot.step).name}"
        for attempt in range(1, self._config.retries + 2):
            report: dict = {"pieces": to_records(place(pieces, name)), "files": {}}
            try:
                staging.mkdir(parents=True, exist_ok=True)
                if pieces:
                    data = chunks_of(tensors) if chunks is None else chunks
                    report["files"][name] = write_file(staging / name, data)
            except OSError as error:
                report["error"] = f"{error.strerror or error} ({error.filename or staging / name})"
            verdict = self._agree(snapshot, staging, report, stalled_s, f"{number}/{attempt}", attempt)
            if verdict != _RETRY:
                return verdict == _COMMITTED
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt is never followed by another")

    def _agree(self, snapshot, staging: Path, report: dict, stalled_s: float, key: str, attempt: int) -> str:
        """Tell the main process how writing went; it decides for all."""
        self._store.set(f"{key}/{self._mesh.rank}", json.dumps(report))
        if self._mesh.is_main:
            self._store.set(f"{key}/verdict", self._decide(snapshot, staging, stalled_s, key, attempt))
        self._store.wait([f"{key}/verdict"], _FOREVER)
        return self._store.get(f"{key}/verdict").decode()

    def _decide(self, snapshot: Snapshot, staging: Path, stalled_s: float, key: str, attempt: int) -> str:
        files, records, errors = {}, [], []
        for rank in range(self._mesh.world_size):
            self._store.wait([f"{key}/{rank}"], _FOREVER)
            report = json.loads(self._store.get(f"{key}/{rank}"))
            self._store.delete_key(f"{key}/{rank}")
            files |= report["files"]
            records += report["pieces"]
            errors += [f"rank {rank}: {report['error']}"] if "error" in report else []
        if not errors:
            try:
                self._commit(snapshot, staging, files, records, stalled_s)
            except OSError as error:
                errors.append(f"{error.strerror or error} ({error.filename or staging})")
            else:
                self._remove_old()
                return _COMMITTED
        # First the space: a full disk has none for the event either.
        shutil.rmtree(staging, ignore_errors=True)
        is_last = attempt > self._config.retries
        self._run.append_event(
            "checkpoint_failed",
            step=snapshot.step,
            reason="; ".join(errors[:3]) + (f"; and {len(errors) - 3} more ranks" if len(errors) > 3 else ""),
            attempt=attempt,
            tries_again=not is_last,
        )
        return _GIVEN_UP if is_last else _RETRY

    def _commit(self, snapshot: Snapshot, staging: Path, files: dict, records: list, stalled_s: float) -> None:
        final = step_folder(self._run.checkpoints, snapshot.step)
        files[INDEX] = write_text_file(staging / INDEX, dump_index(records, snapshot.optimizer_scalars))
        if final.exists():  # of a history that was rolled back, or damaged
            set_aside(final)
        commit(staging, final, Manifest(snapshot.state, snapshot.run_config, self._mesh.describe(), files))
        self._run.append_event(
            "checkpoint_saved",
            step=snapshot.step,
            path=str(final),
            seconds=round(time.perf_counter() - snapshot.started_at, 3),
            stalled_s=round(stalled_s if self._config.asynchronous else time.perf_counter() - snapshot.started_at, 3),
            bytes=sum(record["bytes"] for record in files.values()),
        )

    def _remove_old(self) -> None:
        try:
            remove_old(self._run.checkpoints, self._config)
        except OSError as error:  # what is left goes after the next save
            say_error(f"old checkpoints could not be removed: {error}")


def remove_unfinished(checkpoints: Path) -> list[str]:
    """Remove what processes that ended in the middle of a save have left; returns the names."""
    names = []
    for staging in checkpoints.glob(f"{STAGING}*"):
        names.append(staging.name)
        shutil.rmtree(staging, ignore_errors=True)
    return names


def write_alone(folder: Path, manifest: Manifest, pieces: list[tuple[Piece, torch.Tensor]]) -> None:
    """Write a checkpoint of one process without an optimizer, as conversion does. FileExistsError where the folder exists."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists; nothing is overwritten, choose another folder")
    staging, name = folder.with_name(STAGING + folder.name), "rank_00000.bin"
    os.makedirs(staging)
    files = {name: write_file(staging / name, chunks_of([tensor for _, tensor in pieces]))}
    records = to_records(place([piece for piece, _ in pieces], name))
    files[INDEX] = write_text_file(staging / INDEX, dump_index(records, None))
    commit(staging, folder, Manifest(manifest.state, manifest.config, manifest.layout, files))
