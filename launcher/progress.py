"""What the foreground shows of a run: a progress bar on a terminal, log lines elsewhere. Reads only its record."""

import json
import sys
import time
from collections.abc import Callable

from launcher.event_text import event_line, metric_texts, step_line
from launcher.prepare_data import progress_file
from launcher.run_status import time_left_s
from robustbert.durations import duration
from robustbert.json_lines import JsonTail
from robustbert.run_directory import RunDirectory

LINE_INTERVAL_S = 5.0  # between two lines about steps, where there is no terminal
# What the bar says after an event, until there is a step to show.
_PHASES = {"prepared": "starting the processes", "restarted": "starting the processes", "started": "training"}
_PHASES |= {"stopping": "stopping", "finished": "converting the model"}


class RunFeed:
    """News of a run since the last call, and what of it is needed to draw its state."""

    def __init__(self, run: RunDirectory):
        self.run = run
        self._events = JsonTail(run.events_file, from_end=True)
        self._metrics = JsonTail(run.metrics_file, from_end=True)
        self.recent_metrics: list[dict] = []

    def new_events(self) -> list[dict]:
        return self._events.new_lines()

    def new_metrics(self) -> list[dict]:
        news = self._metrics.new_lines()
        self.recent_metrics = (self.recent_metrics + news)[-10:]
        return news

    def preparation(self) -> tuple[str, float | None] | None:
        """What the data preparation is doing and its share done; None outside of it."""
        try:
            state = json.loads(progress_file(self.run).read_text(encoding="utf-8"))
            return state["text"], state["share"]
        except (OSError, ValueError, KeyError):
            return None


class LineView:
    """Events as they happen, and the newest logged step every few seconds."""

    def __init__(self, feed: RunFeed, total_steps: int):
        self._feed, self._total = feed, total_steps
        self._events = EventPrinter(self.say)
        self._line_at = self._preparation_at = float("-inf")
        self._pending: dict | None = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._show_step()

    def update(self) -> None:
        metrics = self._feed.new_metrics()
        events = self._feed.new_events()
        if metrics:
            self._pending = metrics[-1]
        if events or time.monotonic() - self._line_at >= LINE_INTERVAL_S:
            self._show_step()
        for event in events:
            self._events.show(event)
        preparation = self._feed.preparation()
        if preparation and time.monotonic() - self._preparation_at >= LINE_INTERVAL_S:
            self._preparation_at = time.monotonic()
            text, share = preparation
            self.say(f"preparing data: {text}" + ("" if share is None else f"  {share:.0%}"))

    def say(self, text: str) -> None:
        print(text, flush=True)

    def _show_step(self) -> None:
        if self._pending is not None:
            self._line_at = time.monotonic()
            self.say(step_line(self._pending, self._total, time_left_s(self._feed.recent_metrics, self._total)))
            self._pending = None


class BarView:
    """A progress bar at the foot of the terminal, events above it."""

    def __init__(self, feed: RunFeed, total_steps: int):
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        self._feed, self._total = feed, total_steps
        self._events = EventPrinter(self.say)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
        )
        self._task = self._progress.add_task("starting", total=None, text="")
        self._metric: dict | None = None

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *exception):
        self._progress.stop()

    def update(self) -> None:
        if metrics := self._feed.new_metrics():
            self._metric = metrics[-1]
        for event in self._feed.new_events():
            self._events.show(event)
            if event.get("event") in _PHASES:
                self._metric = None
                self._draw(_PHASES[event["event"]], "", None)
        if preparation := self._feed.preparation():
            self._draw("preparing data", preparation[0], preparation[1])
        elif self._metric:
            left_s = time_left_s(self._feed.recent_metrics, self._total)
            parts = [f"{label} {text}" for label, text in metric_texts(self._metric) if label != "lr"]
            parts += [] if left_s is None else [f"{duration(left_s)} left"]
            step = self._metric["step"]
            self._draw(f"step {step}/{self._total}", "  ".join(parts), step / self._total)

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)

    def _draw(self, description: str, text: str, share: float | None) -> None:
        completed, total = (0, None) if share is None else (share, 1.0)
        self._progress.update(self._task, description=description, text=text, completed=completed, total=total)


class EventPrinter:
    """Says the line of an event; before it, the traceback of the process that failed first, in full when it is new."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say
        self._last_traceback: str | None = None

    def show(self, event: dict) -> None:
        trace = event.get("traceback")
        if trace and event.get("kind") != "user":
            who = "data preparation" if event.get("event") == "failed" else f"rank {event.get('rank')}"
            again = trace == self._last_traceback
            self._say(f"--- {who}: the same traceback again ---" if again else f"--- {who} ---\n{trace.rstrip()}\n---")
            self._last_traceback = trace
        if line := event_line(event):
            self._say(line)


def build_view(feed: RunFeed, total_steps: int):
    """The view that fits where standard output goes."""
    return (BarView if sys.stdout.isatty() else LineView)(feed, total_steps)
