"""What a finetuning shows while it works: a bar on a terminal, lines elsewhere, nothing on the other processes."""

import sys
import time

from robustbert.durations import duration

_LINE_INTERVAL_S = 10.0


class Quiet:
    """Shows nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def say(self, text: str) -> None:
        """A line that stays."""

    def step(self, step: int, total_steps: int, loss: float, left_s: float | None) -> None:
        """How far the training has got."""


class Lines(Quiet):
    """A line every some seconds."""

    def __init__(self):
        self._shown_at = time.monotonic()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def step(self, step: int, total_steps: int, loss: float, left_s: float | None) -> None:
        if time.monotonic() - self._shown_at >= _LINE_INTERVAL_S:
            self._shown_at = time.monotonic()
            self.say(f"step {step}/{total_steps}  {_figures(loss, left_s)}")


class Bar(Quiet):
    """A bar at the foot of the terminal."""

    def __init__(self):
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self._task = self._progress.add_task("reading", total=None, text="")

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *exception):
        self._progress.stop()

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, total_steps: int, loss: float, left_s: float | None) -> None:
        text = _figures(loss, left_s)
        self._progress.update(self._task, description=f"step {step}/{total_steps}", total=total_steps, completed=step, text=text)


def build_view(rank: int, num_processes: int) -> Quiet:
    """The view that fits this process and its output."""
    if rank:
        return Quiet()
    # mpirun gives its processes a terminal whatever its own output is, so several processes show lines
    return Bar() if sys.stdout.isatty() and num_processes == 1 else Lines()


def _figures(loss: float, left_s: float | None) -> str:
    return f"loss {loss:.4f}" + ("" if left_s is None else f"  {duration(left_s)} left")
