"""Training that goes wrong: what tells it, and the way back to the newest good checkpoint and around the data that led there."""

import json
import math
import os
import statistics
from dataclasses import asdict, dataclass

from robustbert.checkpoint.manager import CheckpointManager
from robustbert.config import RunConfig
from robustbert.optim.build import Update
from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory
from robustbert.train.start import Start
from robustbert.train.state import TrainState

_FEWEST_NORMS = 16  # before a norm can be called far from the others


class TrainingDiverged(ValueError):
    """Training goes wrong again and again; a restart would give the same."""


def find_trouble(config: RunConfig, state: TrainState, loss: float, update: Update) -> str | None:
    """What is wrong with the step that `state` has just counted; None where nothing is. The same on every process.

    Wrong are a loss or gradient norm that is not finite, an overflow at the smallest loss scale, and a gradient norm
    above spike_factor times the median of the last spike_window ones. A norm that is right joins those.
    """
    limits = config.fault_tolerance
    if not update.applied:
        at_minimum = update.loss_scale <= config.optim.min_loss_scale
        return f"an overflow at the smallest loss scale ({update.loss_scale:g})" if at_minimum else None
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(update.grad_norm):
        return f"the gradient norm is {update.grad_norm}"
    norms = state.recent_grad_norms
    if limits.spike_factor and len(norms) >= min(_FEWEST_NORMS, limits.spike_window):
        median = statistics.median(norms)
        if update.grad_norm > limits.spike_factor * median:
            factor = update.grad_norm / median
            return f"the gradient norm {update.grad_norm:.4g} is {factor:.1f} times the median of the last {len(norms)}"
    state.recent_grad_norms = [*norms, update.grad_norm][-limits.spike_window :]
    return None


@dataclass(frozen=True)
class SkippedWindow:
    """Steps [first, stop) of the data's order, which the run leaves out."""

    first: int
    stop: int
    reason: str


class SkippedData:
    """The windows of a run, kept in RUN/skipped_data.json: whatever is restarted afterwards leaves them out as well."""

    def __init__(self, run: RunDirectory, mesh: Mesh):
        self._file, self._mesh = run.path / "skipped_data.json", mesh
        records = mesh.broadcast_from_main(self._read() if mesh.is_main else None)
        self.windows = [SkippedWindow(**record) for record in records]

    def add(self, window: SkippedWindow) -> None:
        self.windows.append(window)
        if self._mesh.is_main:
            draft = self._file.with_name(f".{self._file.name}")
            draft.write_text(json.dumps([asdict(window) for window in self.windows], indent=1))
            os.replace(draft, self._file)

    def next_step(self, data_step: int) -> int:
        """data_step, or the first one behind it that is not left out."""
        while inside := [window for window in self.windows if window.first <= data_step < window.stop]:
            data_step = max(window.stop for window in inside)
        return data_step

    def _read(self) -> list[dict]:
        return json.loads(self._file.read_text()) if self._file.exists() else []


class Rollback:
    """Takes the run back to its newest good checkpoint and on with other data. Called by every process at the same step."""

    def __init__(self, config: RunConfig, run: RunDirectory, mesh: Mesh, start: Start, state: TrainState):
        self._config = config
        self._run = run
        self._mesh = mesh
        self._start = start
        self._state = state
        self.skipped = SkippedData(run, mesh)

    def roll_back(self, reason: str, checkpoints: CheckpointManager) -> None:
        """Leave out all data since the checkpoint, up to the step that went wrong.

        TrainingDiverged where it was tried fault_tolerance.max_rollbacks times. Without any checkpoint yet the run goes
        back to its initial weights.
        """
        limit = self._config.fault_tolerance.max_rollbacks
        bad_step, stop = self._state.step, self._state.data_step
        if len(self.skipped.windows) >= limit:
            tried = f"after {limit} rollbacks (fault_tolerance.max_rollbacks) " if limit else ""
            raise TrainingDiverged(
                f"{tried}{reason} at step {bad_step}; try a smaller optim.lr, more optim.warmup_steps, or optim.clip_grad"
            )
        if not checkpoints.load_newest_good():
            self._start.take()
            self._state.start_over()
        first = self.skipped.next_step(self._state.data_step)
        self.skipped.add(SkippedWindow(first, stop, f"{reason} at step {bad_step}"))
        if self._mesh.is_main:
            self._run.append_event(
                "rolled_back",
                step=bad_step,
                to_step=self._state.step,
                reason=reason,
                skipped_data_steps=[first, stop - 1],
                rollback=len(self.skipped.windows),
                max_rollbacks=limit,
            )
