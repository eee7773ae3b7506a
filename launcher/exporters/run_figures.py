"""The figures of a run as its record tells them, kept up line by line: what an exporter or a display shows of it as a whole."""

from collections import Counter, defaultdict

from launcher.run_status import LIVE_STATES
from robustbert.goodput import TimeLedger
from robustbert.json_lines import JsonTail
from robustbert.run_directory import RunDirectory


class Rising:
    """The sum of all rises of a count that a restart or rollback may set back: Prometheus' counters never fall."""

    def __init__(self):
        self.total = 0.0
        self._last = 0.0

    def take(self, value: float) -> None:
        self.total += max(0.0, value - self._last)
        self._last = value


class RunFigures:
    """Everything since the run was submitted, over all its supervisors and attempts. Each new line costs the same."""

    def __init__(self, run: RunDirectory):
        self._new_events, self._new_lines = JsonTail(run.events_file), JsonTail(run.metrics_file)
        self._ledger = TimeLedger()
        self.state = "starting"
        self.events = Counter()  # by name
        self.newest: dict = {}  # line of metrics.jsonl
        self.checkpoint: dict = {}  # newest event checkpoint_saved
        self.heldout_loss: float | None = None
        self.layout: dict = {}
        self.tokens, self.skipped_steps = Rising(), Rising()
        self.corpus_samples: dict[str, Rising] = defaultdict(Rising)

    def update(self, heard: dict | None = None) -> None:
        """Read what has come. heard: the newest line as rank 0 sent it, which counts where the file has not got it."""
        events, lines = self._new_events.new_lines(), self._new_lines.new_lines()
        newest_time = max([self.newest.get("time", 0.0), *(line.get("time", 0.0) for line in lines)])
        if heard is not None and heard.get("time", 0.0) > newest_time:
            lines.append(heard)
        for event in events:
            self._take_event(event)
        for line in lines:
            self._take_line(line)
        self._ledger.add((e for e in events if "time" in e), (line for line in lines if "time" in line))

    def end(self) -> None:
        """The supervision ends: a run that was stopping has stopped."""
        self.update()
        if self.state == "stopping":
            self.state = "stopped"

    def run_seconds(self, now: float) -> dict[str, float]:
        """By activity; they never fall."""
        return self._ledger.settle(now)

    def goodput(self, now: float) -> float | None:
        return self._ledger.goodput(now)

    def _take_event(self, event: dict) -> None:
        name = event.get("event", "")
        self.events[name] += 1
        self.state = LIVE_STATES.get(name, self.state)
        if name == "checkpoint_saved":
            self.checkpoint = event
        elif name == "evaluated":
            self.heldout_loss = event.get("heldout_loss")
        elif name == "started" and isinstance(event.get("layout"), dict):
            self.layout = event["layout"]

    def _take_line(self, line: dict) -> None:
        if line.get("time", 0.0) < self.newest.get("time", 0.0):
            return
        self.newest = line
        self.tokens.take(line.get("tokens", 0))
        self.skipped_steps.take(line.get("skipped_steps", 0))
        for corpus, num_samples in line.get("corpus_samples", {}).items():
            self.corpus_samples[corpus].take(num_samples)
