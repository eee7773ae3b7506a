"""What the supervisor has been asked by signals: to stop after saving a checkpoint, or to kill at once."""

import signal


class StopRequest:
    """Signal handlers of a supervisor; the first request to stop gives the reason and the exit code.

    SIGINT: the user stops the run (130). SIGTERM, SIGUSR1, SIGUSR2: the machine is needed, or goes down (75, EX_TEMPFAIL: try
    again later). SIGQUIT: kill at once. SIGHUP is ignored: the run outlives the terminal that it was started from.
    """

    REASONS = {
        signal.SIGINT: ("cancelled by the user", 130),
        signal.SIGTERM: ("preempted by SIGTERM", 75),
        signal.SIGUSR1: ("preempted by SIGUSR1", 75),
        signal.SIGUSR2: ("preempted by SIGUSR2", 75),
    }

    def __init__(self):
        self.reason: str | None = None
        self.number: signal.Signals | None = None  # of the signal that gave the reason
        self.exit_code = 75
        self.kill_at_once = False
        for number in self.REASONS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGQUIT, self._kill)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @property
    def is_set(self) -> bool:
        return self.reason is not None

    def _stop(self, number, frame) -> None:
        if self.reason is None:
            self.number = signal.Signals(number)
            self.reason, self.exit_code = self.REASONS[number]

    def _kill(self, number, frame) -> None:
        self._stop(signal.SIGINT, frame)
        self.kill_at_once = True
