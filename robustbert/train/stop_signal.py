"""StopSignal: a notice (SIGTERM, SIGUSR1, SIGUSR2) becomes one decision of all ranks to save and stop."""

import signal

_NOTICES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopSignal:
    """Set it up before the loop; every step carries each rank's `is_requested` to the others, and gives `agree` the answer."""

    def __init__(self):
        self._received: str | None = None
        self.is_agreed = False  # the same on all ranks
        for notice in _NOTICES:
            signal.signal(notice, self._receive)

    @property
    def is_requested(self) -> bool:
        """Whether this rank was told to stop."""
        return self._received is not None

    def agree(self, is_requested_anywhere: bool) -> None:
        """Take what the step found out."""
        self.is_agreed = is_requested_anywhere

    @property
    def reason(self) -> str:
        """The signal's name, where this rank got it."""
        return self._received or "another rank was told to stop"

    def _receive(self, number, frame) -> None:
        self._received = signal.Signals(number).name


class NeverStop:
    """In place of StopSignal where steps are measured: the signals stay those of whoever measures."""

    is_requested = False

    def agree(self, is_requested_anywhere: bool) -> None:
        """No rank asks for it."""
