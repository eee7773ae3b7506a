"""CheckpointManager: saves a run's checkpoints, and takes the newest good one up again."""

import os
import shutil
import time
from pathlib import Path

from robustbert.checkpoint.manifest import (
    CheckpointError,
    Manifest,
    commit,
    committed_checkpoints,
    describe_files,
    step_folder,
    verify,
)
from robustbert.checkpoint.retention import removable_steps
from robustbert.checkpoint.sharded import read_shards, write_shards
from robustbert.config import CheckpointConfig
from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory


class CheckpointManager:
    """All methods but is_due are collective: every rank calls them at the same step."""

    def __init__(
        self, config: CheckpointConfig, run: RunDirectory, mesh: Mesh, model, optimizer, state, run_config: dict
    ):
        """state: TrainState; run_config: the resolved configuration, kept in every manifest."""
        self._config = config
        self._run = run
        self._mesh = mesh
        self._model = model
        self._optimizer = optimizer
        self._state = state
        self._run_config = run_config

    def is_due(self, step: int) -> bool:
        return step % self._config.interval == 0

    def load_newest_good(self) -> bool:
        """Restore the newest checkpoint that passes verification; False on a run that has none.

        A bad one is set aside under another name (event checkpoint_rejected) and the one before it is taken.
        CheckpointError where the run has checkpoints and none of them is good: it never starts over by itself.
        """
        chosen = self._choose() if self._mesh.is_main else None
        folder, saved_state, error = self._mesh.broadcast_from_main(chosen)
        if error:
            raise CheckpointError(error)
        if folder is None:
            return False
        self._state.restore(saved_state)
        read_shards(Path(folder), self._model, self._optimizer)
        return True

    def save(self) -> Path:
        """Write, flush, describe and commit the state of this step; the folder has its name only once it is complete."""
        started = time.perf_counter()
        step = self._state.step
        final = step_folder(self._run.checkpoints, step)
        staging = self._run.checkpoints / f".staging_{final.name}"
        if self._mesh.is_main:
            shutil.rmtree(staging, ignore_errors=True)  # of an attempt that did not get to its end
            staging.mkdir(parents=True)
        self._mesh.barrier()
        written = write_shards(staging, self._model, self._optimizer, self._mesh)
        described = self._mesh.gather_on_main(describe_files(staging, written))
        if self._mesh.is_main:
            files = {name: record for part in described for name, record in sorted(part.items())}
            self._set_aside_if_present(final)
            commit(staging, final, Manifest(self._state.to_dict(), self._run_config, self._mesh.describe(), files))
            self._remove_old()
            num_bytes = sum(record["bytes"] for record in files.values())
            self._run.append_event(
                "checkpoint_saved",
                step=step,
                path=str(final),
                seconds=round(time.perf_counter() - started, 3),
                bytes=num_bytes,
            )
        self._mesh.barrier()
        return final

    def finish(self) -> None:
        """Save the last state unless this step is on disk already."""
        final = step_folder(self._run.checkpoints, self._state.step)
        if not self._mesh.broadcast_from_main(final in committed_checkpoints(self._run.checkpoints)):
            self.save()

    def _choose(self) -> tuple[str | None, dict | None, str | None]:
        candidates = committed_checkpoints(self._run.checkpoints)
        for folder in reversed(candidates):
            try:
                return str(folder), verify(folder).state, None
            except CheckpointError as error:
                self._run.append_event("checkpoint_rejected", path=str(folder), reason=str(error))
                self._set_aside_if_present(folder)
        if candidates or any(self._run.checkpoints.glob("rejected_*")):
            return None, None, (
                f"{self._run.checkpoints}: none of the run's checkpoints can be used; they are kept as rejected_*. "
                "Start a new run under another name, or bring a good checkpoint back"
            )
        return None, None, None

    def _set_aside_if_present(self, folder: Path) -> None:
        if folder.exists():
            aside = folder.with_name(f"rejected_{folder.name}")
            number = 2
            while aside.exists():
                aside = folder.with_name(f"rejected_{folder.name}.{number}")
                number += 1
            os.rename(folder, aside)

    def _remove_old(self) -> None:
        by_step = {int(folder.name.removeprefix("step_")): folder for folder in committed_checkpoints(self._run.checkpoints)}
        for step in removable_steps(list(by_step), self._config):
            # Under another name first: a removal that is cut short leaves nothing that looks like a checkpoint.
            doomed = by_step[step].with_name(f".removing_{by_step[step].name}")
            os.rename(by_step[step], doomed)
            shutil.rmtree(doomed, ignore_errors=True)
