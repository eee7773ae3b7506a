"""Progress: how far a process has got. Training marks it, whoever watches the process for hangs or for its speed reads it."""

import time
from collections.abc import Callable

COMPILING = "compiling the model"  # the first forward and backward passes of a compiled model; takes a minute


class Progress:
    """The last mark: training step (None before the first one), what the process does there, and since when."""

    def __init__(self):
        self.step: int | None = None
        self.phase = "starting"
        self.count = 0
        self.newest_report: dict | None = None
        self._since = time.monotonic()
        self._listener: Callable[[str], None] | None = None

    def mark(self, phase: str, step: int | None = None) -> None:
        """The process goes on to `phase`; a step once given stays. As cheap as it looks: called several times a step."""
        if self._listener is not None:
            self._listener(phase)
        self.phase, self.count, self._since = phase, self.count + 1, time.monotonic()
        if step is not None:
            self.step = step

    def report(self, report: dict) -> None:
        """Leave what is to be told of this process (JSON, not changed any more) for whoever sends it on; costs nothing."""
        self.newest_report = report

    def listen(self, listener: Callable[[str], None] | None) -> None:
        """Call `listener` at every mark with the phase that begins; None ends it."""
        self._listener = listener

    @property
    def age_s(self) -> float:
        """Seconds since the last mark."""
        return time.monotonic() - self._since
