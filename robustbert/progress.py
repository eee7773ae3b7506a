"""Progress: how far a process has got. Training marks it, whoever watches the process for hangs reads it."""

import time


class Progress:
    """The last mark: training step (None before the first one), what the process does there, and since when."""

    def __init__(self):
        self.step: int | None = None
        self.phase = "starting"
        self.count = 0
        self._since = time.monotonic()

    def mark(self, phase: str, step: int | None = None) -> None:
        """The process goes on to `phase`; a step once given stays. As cheap as it looks: called several times a step."""
        self.phase, self.count, self._since = phase, self.count + 1, time.monotonic()
        if step is not None:
            self.step = step

    @property
    def age_s(self) -> float:
        """Seconds since the last mark."""
        return time.monotonic() - self._since
