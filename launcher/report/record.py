"""RunRecord: all that a report tells of one run, read from its directory as far as it has got."""

import time
from dataclasses import dataclass

import numpy as np

from launcher.run_status import RunStatus, read_status
from robustbert.config import ConfigError, RunConfig, config_to_dict, load_config
from robustbert.goodput import TimeAccount, TimeLedger
from robustbert.json_lines import JsonTail
from robustbert.run_directory import RunDirectory


# Keys of metrics.jsonl that add up to step_time_s, and what a reader calls them.
STEP_PARTS = {
    "forward_backward_s": "forward and backward",
    "collectives_s": "collectives",
    "optimizer_s": "optimizer",
    "data_wait_s": "waiting for data",
    "other_s": "other",
}


@dataclass(frozen=True)
class Checkpoint:
    """One attempt to keep the state of a step. outcome: kept, removed, failed, rejected; reason: of the latter two."""

    time: float
    step: int | None
    outcome: str
    bytes: float | None = None
    seconds: float | None = None  # from the copy of the state to the commit
    stalled_s: float | None = None  # how long training stood still for it
    reason: str = ""


class RunRecord:
    """A run at one moment. Nothing needs to be there: a run that has logged nothing yet has empty columns."""

    def __init__(self, run: RunDirectory):
        self.run = run
        self.events: list[dict] = []
        self.metrics: list[dict] = []
        self._tails = JsonTail(run.events_file), JsonTail(run.metrics_file)
        self._columns: dict[str, np.ndarray] = {}
        self._ledger = TimeLedger()
        self.config: RunConfig | None = None
        self.config_error = ""
        try:
            self.config = load_config(run.config_file)
        except ConfigError as error:
            self.config_error = str(error)
        self.refresh()

    def refresh(self) -> None:
        """Read what has been written since the last time."""
        self.read_at = time.time()
        self.status: RunStatus = read_status(self.run)
        new_events, new_metrics = (tail.new_lines() for tail in self._tails)
        new_events = [line for line in new_events if is_number(line.get("time")) and isinstance(line.get("event"), str)]
        new_metrics = [line for line in new_metrics if is_number(line.get("time")) and is_number(line.get("step"))]
        self.events += new_events
        self.metrics += new_metrics
        self._ledger.add(new_events, new_metrics)
        self._columns.clear()

    @property
    def name(self) -> str:
        return self.status.name

    @property
    def now(self) -> float:
        """Until when the record tells: the present of a run that goes on, otherwise its last sign of life."""
        times = [line["time"] for line in (*self.events[-1:], *self.metrics[-1:])]
        return self.read_at if self.status.is_alive or not times else max(times)

    @property
    def started_at(self) -> float:
        """When it was submitted, as far as is known."""
        return min((line["time"] for line in (*self.events[:1], *self.metrics[:1])), default=self.read_at)

    def column(self, key: str) -> np.ndarray:
        """float64, one value a logged step in the order of logging; NaN where the line has none."""
        if key not in self._columns:
            values = (line.get(key) for line in self.metrics)
            self._columns[key] = np.array([value if is_number(value) else np.nan for value in values], dtype=np.float64)
        return self._columns[key]

    @property
    def time_account(self) -> TimeAccount:
        """Where the time since its submission went."""
        return self._ledger.account(self.now)

    def events_named(self, *names: str) -> list[dict]:
        return [event for event in self.events if event.get("event") in names]

    def tokens_at(self, steps: np.ndarray) -> np.ndarray:
        """Tokens trained on after these steps, from the logged steps around them."""
        known, tokens = self.column("step"), self.column("tokens")
        usable = np.isfinite(tokens)
        if not usable.any():
            return np.full(len(steps), np.nan)
        order = np.argsort(known[usable], kind="stable")
        return np.interp(steps, np.append(0, known[usable][order]), np.append(0, tokens[usable][order]))

    @property
    def evaluations(self) -> list[tuple[float, float, float]]:
        """(time, step, held-out perplexity), from before training to the end of the run."""
        found = [
            (event["time"], 0, event["heldout_perplexity_before"])
            for event in self.events_named("started")[:1]
            if is_number(event.get("heldout_perplexity_before"))
        ]
        return found + [
            (event["time"], event["step"], event["heldout_perplexity"])
            for event in self.events_named("evaluated", "finished")
            if is_number(event.get("heldout_perplexity")) and is_number(event.get("step"))
        ]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Every save and every rejection, oldest first."""
        there = {path.parent.name for path in self.run.checkpoints.glob("step_*/COMMITTED")}
        found = []
        for event in self.events_named("checkpoint_saved", "checkpoint_failed", "checkpoint_rejected"):
            name = str(event.get("path", "")).rstrip("/").rpartition("/")[2]
            step = event.get("step", _step_of(name))
            if event["event"] == "checkpoint_saved":
                sizes = (event.get("bytes"), event.get("seconds"), event.get("stalled_s"))
                found.append(Checkpoint(event["time"], step, "kept" if name in there else "removed", *sizes))
            else:
                outcome = event["event"].removeprefix("checkpoint_")
                found.append(Checkpoint(event["time"], step, outcome, reason=str(event.get("reason", ""))))
        return found

    def flat_config(self) -> dict[str, object]:
        """`section.key` -> value, of the resolved configuration; empty where it cannot be read."""
        return {} if self.config is None else dict(_flatten(config_to_dict(self.config), ""))


def is_number(value) -> bool:
    """Whether it is a number, NaN and infinity among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _step_of(folder_name: str) -> int | None:
    digits = folder_name.rpartition("step_")[2]
    return int(digits) if digits.isdigit() else None


def _flatten(tree: dict, prefix: str):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
