"""StopSignal: a notice (SIGTERM, SIGUSR1, SIGUSR2) becomes one decision of all ranks to save and stop."""

import signal

from robustbert.parallel.mesh import Mesh

_NOTICES = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopSignal:
    """Set it up before the loop, ask after every step."""

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._received: str | None = None
        for notice in _NOTICES:
            signal.signal(notice, self._receive)

    def agreed_by_all_ranks(self) -> bool:
        """Whether any rank was told to stop; the same answer everywhere. A collective call."""
        return self._mesh.any_rank(self._received is not None)

    @property
    def reason(self) -> str:
        """The signal's name, where this rank got it."""
        return self._received or "another rank was told to stop"

    def _receive(self, number, frame) -> None:
        self._received = signal.Signals(number).name
