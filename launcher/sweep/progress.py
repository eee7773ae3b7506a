"""How far a sweep has got: a line a member that ends, with the count and the time left; a bar on a terminal; a table."""

import contextlib
import sys
import time

from launcher.run_status import read_status, status_table
from launcher.supervisor_record import is_supervised, read_supervisor
from launcher.sweep.folder import Done, Member, Sweep
from robustbert.durations import duration


class Count:
    """How many members have ended, and how long the others will take if they go on like that."""

    def __init__(self, num_members: int, num_before: int):
        self.num_members, self.num_done = num_members, num_before
        self.num_failed = 0
        self._num_before, self._started_at = num_before, time.monotonic()

    def add(self, is_success: bool) -> None:
        self.num_done += is_success
        self.num_failed += not is_success

    def in_words(self) -> str:
        """`7/12 done, 1 failed, 3 min 05 s left`."""
        ended = self.num_done - self._num_before + self.num_failed
        left = self.num_members - self.num_done - self.num_failed
        parts = [f"{self.num_done}/{self.num_members} done", *([f"{self.num_failed} failed"] if self.num_failed else [])]
        if ended and left:
            parts.append(f"about {duration((time.monotonic() - self._started_at) / ended * left)} left")
        return ", ".join(parts)


class LineView:
    """A line when a member ends."""

    def __init__(self, count: Count):
        self.count = count

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def ended(self, member: Member, done: Done) -> None:
        """Count the member and say how it ended."""
        self.count.add(done.is_success)
        hint = "" if done.is_success else f", see {member.log}"
        self.say(f"{member.name}: {done.in_words()}, {duration(done.seconds)} on {done.host}{hint}  [{self.count.in_words()}]")

    def update(self, running: list[str]) -> None:
        """What runs at this moment."""

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a sweep outlives the terminal that it was started from
            print(text, flush=True)


class BarView(LineView):
    """The same above a bar."""

    def __init__(self, count: Count):
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

        super().__init__(count)
        self._progress = Progress(SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"))
        self._task = self._progress.add_task("", total=count.num_members, completed=count.num_done)

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *exception):
        self._progress.stop()

    def update(self, running: list[str]) -> None:
        names = ", ".join(running[:3]) + (", ..." if len(running) > 3 else "")
        self._progress.update(self._task, completed=self.count.num_done, description=f"{self.count.in_words()}  {names}")

    def say(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False)


def build_view(count: Count) -> LineView:
    """The view that fits where standard output goes."""
    return (BarView if sys.stdout.isatty() else LineView)(count)


def describe_sweep(sweep: Sweep, queue: dict[int, str]) -> str:
    """A table of the members, and of the runs where they are runs. queue: what a scheduler says of those that it knows."""
    rows = [("MEMBER", "STATE", "TIME", "HOST")]
    num_done = 0
    for member in sweep.members:
        done = member.read_done()
        num_done += bool(done and done.is_success)
        rows.append((member.name, *(_done_cells(done) if done else _open_cells(member, queue.get(member.number)))))
    widths = [max(map(len, column)) for column in zip(*rows)]
    table = "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    parts = [f"{sweep.title}: {num_done}/{len(sweep.members)} done", table]
    if runs := [member.run for member in sweep.members if member.run and member.run.path.exists()]:
        parts.append(status_table([read_status(run) for run in runs]))
    return "\n\n".join(parts)


def _done_cells(done: Done) -> tuple[str, ...]:
    return done.in_words(), duration(done.seconds), done.host


def _open_cells(member: Member, queued: str | None) -> tuple[str, ...]:
    if is_supervised(member):
        return "running", "-", read_supervisor(member).host
    return f"queued: {queued}" if queued else ("interrupted" if member.log.exists() else "waiting"), "-", "-"
