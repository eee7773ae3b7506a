"""Which checkpoints may go: all but the newest `keep_last` and those at a multiple of `keep_every`; never one that is being read."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from robustbert.checkpoint.manifest import COMMITTED, committed_checkpoints, step_of
from robustbert.config import CheckpointConfig

_REMOVING = ".removing_"


def removable_steps(steps: list[int], config: CheckpointConfig) -> list[int]:
    """Of the steps that have a checkpoint, those that are not to be kept, oldest first."""
    kept = set(sorted(steps)[-config.keep_last :])
    if config.keep_every:
        kept |= {step for step in steps if step % config.keep_every == 0}
    return [step for step in sorted(steps) if step not in kept]


def remove_old(checkpoints: Path, config: CheckpointConfig) -> None:
    """Remove what may go, but for checkpoints that someone reads at this moment: those go after a later save."""
    by_step = {step_of(folder): folder for folder in committed_checkpoints(checkpoints)}
    for step in removable_steps(list(by_step), config):
        with _lock(by_step[step], fcntl.LOCK_EX | fcntl.LOCK_NB) as is_ours:
            if not is_ours:
                continue
            # Under another name first: a removal that is cut short leaves nothing that looks like a checkpoint.
            doomed = by_step[step].with_name(_REMOVING + by_step[step].name)
            os.rename(by_step[step], doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def finish_removals(checkpoints: Path) -> None:
    """Remove what a process that was killed had begun to remove."""
    for doomed in checkpoints.glob(f"{_REMOVING}*"):
        shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def held_for_reading(folder: Path) -> Iterator[None]:
    """While this is open no training run removes the checkpoint (by a lock, also of other hosts where the file system has locks)."""
    with _lock(folder, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def _lock(folder: Path, kind: int) -> Iterator[bool]:
    """Whether the lock was got; True as well where the file system has none."""
    try:
        descriptor = os.open(folder / COMMITTED, os.O_RDONLY)
    except OSError:
        yield kind == fcntl.LOCK_SH
        return
    try:
        try:
            fcntl.flock(descriptor, kind)
            is_ours = True
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = True
        yield is_ours
    finally:
        os.close(descriptor)
