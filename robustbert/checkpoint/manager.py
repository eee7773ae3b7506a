"""CheckpointManager: saves a run's checkpoints, and takes the newest good one up again."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import torch

from robustbert.checkpoint.manifest import (
    CheckpointError,
    Manifest,
    committed_checkpoints,
    set_aside,
    step_folder,
    unfinished_checkpoints,
)
from robustbert.checkpoint.pieces import own_pieces
from robustbert.checkpoint.restore import restore, verify_together
from robustbert.checkpoint.retention import finish_removals, held_for_reading
from robustbert.checkpoint.saving import CheckpointWriter, Snapshot, remove_unfinished
from robustbert.config import RunConfig
from robustbert.config.yaml_file import config_to_dict
from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory


class CheckpointManager:
    """All methods but is_due are called by every process at the same step; saving goes on behind the training."""

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        mesh: Mesh,
        store: torch.distributed.Store,
        model,
        optimizer,
        state,
        check: Callable[[Manifest], None] = lambda manifest: None,
    ):
        """store: the job's (Device.joined); state: TrainState; the resolved configuration is kept in every manifest.

        check: raises where this run cannot continue from a good checkpoint; the checkpoint stays as it is.
        """
        self._config = config.checkpoint
        self._may_start_over = config.fault_tolerance.start_over
        self._run_config = config_to_dict(config)
        self._run = run
        self._mesh = mesh
        self._model = model
        self._optimizer = optimizer
        self._state = state
        self._check = check
        self._writer = CheckpointWriter(config.checkpoint, run, mesh, store)

    def is_due(self, step: int) -> bool:
        return step % self._config.interval == 0

    def load_newest_good(self) -> bool:
        """Restore the newest checkpoint that passes verification; False on a run that has none.

        The processes verify it together, each its share of the files. A bad one is set aside under another name (event
        checkpoint_rejected) and the one before it is taken. CheckpointError where the run has had checkpoints and none
        is good: it starts over only with fault_tolerance.start_over.
        """
        self._writer.wait()
        candidates = self._mesh.broadcast_from_main(self._tidied_candidates() if self._mesh.is_main else None)
        for folder in map(Path, reversed(candidates)):
            # Kept from removal by the main process alone: that is enough.
            with held_for_reading(folder) if self._mesh.is_main else contextlib.nullcontext():
                manifest, error = verify_together(folder, self._mesh)
                if error is None:
                    self._check(manifest)
                    self._model.complete_weights()  # what is still on its way would come on top
                    self._state.restore(manifest.state)
                    restore(folder, self._model, self._optimizer, self._mesh)
                    self._mesh.barrier()
                    return True
            if self._mesh.is_main:
                self._reject(folder, error)
        had_some = self._mesh.broadcast_from_main(self._has_had_checkpoints() if self._mesh.is_main else None)
        if had_some and not self._may_start_over:
            raise CheckpointError(
                f"{self._run.checkpoints}: none of the run's checkpoints can be used (bad ones are kept as rejected_*), and it "
                "does not start over by itself. Bring a good one back, or let it: launcher resume "
                f"{self._run.path.name} fault_tolerance.start_over=true"
            )
        return False

    def save(self) -> None:
        """Save this step's state; with checkpoint.asynchronous it returns as soon as the state is copied.

        A write that fails is an event and a retry; one that is given up leaves the older checkpoints as they are.
        """
        started_at = time.perf_counter()
        self._writer.wait()
        snapshot = Snapshot(self._state.to_dict(), self._run_config, self._optimizer.scalars(), started_at)
        self._writer.start(snapshot, own_pieces(self._model, self._optimizer, self._mesh))

    def finish(self) -> None:
        """Wait for what is being written, and save the last state unless it is on disk. CheckpointError where that fails."""
        self._writer.wait()
        if self._is_saved():
            return
        self.save()
        if not self._writer.wait():
            raise CheckpointError(
                f"the state of step {self._state.step} could not be saved in {self._run.checkpoints}: see the event "
                f"checkpoint_failed; make room, then: launcher resume {self._run.path.name}"
            )

    def _is_saved(self) -> bool:
        final = step_folder(self._run.checkpoints, self._state.step)
        return self._mesh.broadcast_from_main(final in committed_checkpoints(self._run.checkpoints))

    def _tidied_candidates(self) -> list[str]:
        """The committed checkpoints, oldest first; what was never committed is put out of the way."""
        finish_removals(self._run.checkpoints)
        for name in remove_unfinished(self._run.checkpoints):
            path = self._run.checkpoints / name
            self._run.append_event("checkpoint_rejected", path=str(path), reason="its writing was cut short; removed")
        for folder in unfinished_checkpoints(self._run.checkpoints):
            self._reject(folder, f"{folder} is no complete checkpoint: it has no COMMITTED")
        return [str(folder) for folder in committed_checkpoints(self._run.checkpoints)]

    def _reject(self, folder: Path, reason: str) -> None:
        aside = set_aside(folder)
        self._run.append_event("checkpoint_rejected", path=str(folder), reason=reason, kept_as=aside.name)

    def _has_had_checkpoints(self) -> bool:
        if any(self._run.checkpoints.glob("rejected_*")):
            return True
        return any(event["event"] == "checkpoint_saved" for event in self._run.events())
