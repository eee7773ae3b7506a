"""The state of a run, derived from its own record: events, metrics, and whether its supervisor is alive."""

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from launcher.attempt import newest_checkpoint_step
from launcher.schedulers import find_scheduler
from launcher.supervisor_record import is_supervised, read_supervisor
from robustbert.config import ConfigError, load_config
from robustbert.durations import duration
from robustbert.json_lines import last_lines
from robustbert.run_directory import RunDirectory

# What an event makes of the state of a run whose supervisor is alive; other events leave the state as it is.
LIVE_STATES = {
    "submitted": "preparing",
    "queued": "starting",
    "preparing": "preparing",
    "prepared": "starting",
    "started": "running",
    "restarted": "restarting",
    "hang": "restarting",
    "stopping": "stopping",
    "preempted": "stopping",
    "failed": "failed",
    "finished": "finished",
}
# The same where it is gone: only these three are ends; after any other the run was interrupted.
_ENDED = {"preempted": "stopped", "failed": "failed", "finished": "finished"}
STATES = ("queued", "preparing", "starting", "running", "restarting", "stopping", "finished", "failed", "stopped", "interrupted")
_RECENT = 10  # logged steps whose mean time gives the time left


@dataclass(frozen=True)
class RunStatus:
    """A run at this moment.

    state: one of STATES; the last four are those of a run that has ended.
    """

    run: RunDirectory
    state: str
    is_alive: bool
    step: int
    total_steps: int | None
    checkpoint_step: int | None
    loss: float | None = None
    perplexity: float | None = None
    tokens_per_s: float | None = None
    left_s: float | None = None
    metric_age_s: float | None = None
    detail: str = ""  # the reason of a failure or a stop

    @property
    def name(self) -> str:
        return self.run.path.name

    def in_words(self) -> str:
        """For instance `finished at step 1500`, `running, step 700 of 1500`."""
        if self.is_alive:
            return f"{self.state}, step {self.step} of {self.total_steps}"
        return f"{self.state} at step {self.step}"


def read_status(run: RunDirectory) -> RunStatus:
    """The state of a run directory; reads the end of its metrics only, however long it has run."""
    alive = is_supervised(run)
    events, metrics = run.events(), last_lines(run.metrics_file)
    known = LIVE_STATES if alive else _ENDED | dict.fromkeys(set(LIVE_STATES) - set(_ENDED), "interrupted")
    decisive = next((event for event in reversed(events) if event["event"] in known), {})
    state = known.get(decisive.get("event"), "starting" if alive else "interrupted")
    detail = _reason(events, decisive)
    if not alive and state != "finished" and (waiting := queue_state(run)) is not None:
        state, detail = "queued", f"job {queued_job(run)['job']}: {waiting}"
    checkpoint_step = newest_checkpoint_step(run)
    newest = metrics[-1] if metrics else {}
    step = decisive.get("step") if state in ("finished", "stopped") else newest.get("step")
    if step is None:
        step = newest.get("step") or checkpoint_step or 0
    total_steps = _total_steps(run, alive)
    return RunStatus(
        run=run,
        state=state,
        is_alive=alive,
        step=step,
        total_steps=total_steps,
        checkpoint_step=checkpoint_step,
        loss=newest.get("loss"),
        perplexity=newest.get("perplexity"),
        tokens_per_s=newest.get("tokens_per_s"),
        left_s=time_left_s(metrics, total_steps) if state == "running" else None,
        metric_age_s=time.time() - run.metrics_file.stat().st_mtime if metrics else None,
        detail=detail,
    )


def queued_job(run: RunDirectory) -> dict | None:
    """The newest event `queued`: the run's number in a scheduler's queue; None of a run that never was in one."""
    return next((event for event in reversed(run.events()) if event["event"] == "queued"), None)


def queue_state(run: RunDirectory) -> str | None:
    """What the scheduler says about the run's job, for instance `PENDING (Resources)`; None where it knows none."""
    job = queued_job(run)
    return None if job is None else find_scheduler(job["scheduler"]).job_state(job["job"])


def time_left_s(metrics: list[dict], total_steps: int | None) -> float | None:
    """Seconds until the last step at the speed of the last logged steps; None where nothing is known yet."""
    times = [
        record["step_time_s"] for record in metrics[-_RECENT:] if isinstance(record.get("step_time_s"), (int, float))
    ]
    if not times or total_steps is None:
        return None
    return max(0, total_steps - metrics[-1]["step"]) * sum(times) / len(times)


def is_run(path: Path) -> bool:
    return (path / "events.jsonl").is_file() or (path / "config.yaml").is_file()


def all_runs(folder: Path) -> list[RunDirectory]:
    """The runs of a folder, by name."""
    return [RunDirectory(path) for path in sorted(folder.iterdir()) if is_run(path)] if folder.is_dir() else []


def status_table(statuses: list[RunStatus]) -> str:
    """One line a run, with headings."""
    rows = [("RUN", "STATE", "STEP", "LOSS", "PPL", "TOKENS/S", "LEFT", "LAST METRIC")]
    for status in statuses:
        rows.append(
            (
                status.name,
                status.state,
                f"{status.step}/{'?' if status.total_steps is None else status.total_steps}",
                _number(status.loss, "{:.3f}"),
                _number(status.perplexity, "{:,.1f}"),
                _number(status.tokens_per_s, "{:,.0f}") if status.state == "running" else "-",
                "-" if status.left_s is None else duration(status.left_s),
                "-" if status.metric_age_s is None else f"{duration(status.metric_age_s)} ago",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def way_on(status: RunStatus) -> str:
    """What to type next: to watch it, to resume it, to train on."""
    name = run_argument(status.run)
    if status.is_alive or status.state == "queued":
        return f"launcher logs {name} --follow    launcher cancel {name}"
    if status.state == "finished":
        return f"train on: launcher resume {name} train.steps={2 * status.step or 1}"
    return f"launcher resume {name}"


def ways_to_follow(run: RunDirectory) -> str:
    """What to type about a run that goes on elsewhere, a line each."""
    name = run_argument(run)
    ways = {"look": f"status {name}", "follow": f"logs {name} --follow", "stop": f"cancel {name}"}
    return "\n".join(f"  {text:7} launcher {words}" for text, words in ways.items())


def run_argument(run: RunDirectory) -> str:
    """How the user names this run in a command: its name in the default folder, otherwise its directory."""
    in_default_folder = os.path.abspath(run.path.parent) == os.path.abspath("runs")
    return shlex.quote(run.path.name if in_default_folder else str(run.path))


def _reason(events: list[dict], decisive: dict) -> str:
    """Why the run is in its state; who asked for a stop says more than the signal that reached the processes."""
    newest = next((event for event in reversed(events) if event["event"] in ("stopping", "started")), {})
    if decisive.get("event") == "preempted" and newest.get("event") == "stopping":
        return newest["reason"]
    return decisive.get("reason", "")


def _total_steps(run: RunDirectory, alive: bool) -> int | None:
    record = read_supervisor(run) if alive else None
    supervised = None if record is None else run.supervised_config_file(record.job_mark)
    try:
        return load_config(supervised if supervised and supervised.exists() else run.config_file).train.steps
    except ConfigError:
        return None


def _number(value, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
