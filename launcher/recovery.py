"""What to do after a failure: restart, on which nodes and after which pause, or give up, and why. It changes nothing itself."""

from dataclasses import dataclass

from launcher.failure import Failure
from launcher.nodes import NodePool
from robustbert.config import FaultToleranceConfig

LONGEST_PAUSE_S = 60


@dataclass(frozen=True)
class GiveUp:
    """The run ends."""

    reason: str


@dataclass(frozen=True)
class Restart:
    """Another attempt from the newest checkpoint; number: of those in a row that did not get further."""

    number: int
    pause_s: int


class Recovery:
    """Remembers the failures of one supervision."""

    def __init__(self, limits: FaultToleranceConfig, nodes: NodePool, checkpoint_step: int | None):
        self._limits = limits
        self._nodes = nodes
        self._best_step = checkpoint_step
        self._restarts = 0
        self._last_bug: tuple | None = None

    def decide(self, failure: Failure, checkpoint_step: int | None) -> Restart | GiveUp:
        """After a failure; checkpoint_step: of the newest complete checkpoint."""
        if not failure.is_curable:
            return GiveUp(failure.reason)
        if failure.bug is not None and failure.bug == self._last_bug:
            who = "" if failure.rank is None else f"rank {failure.rank}: "
            return GiveUp(f"the same error at step {failure.step} twice, a restart does not cure it: {who}{failure.reason}")
        self._last_bug = failure.bug
        for host in failure.culprit_hosts:
            self._nodes.report_failure(host, is_certain=failure.kind == "corruption")
        if checkpoint_step is not None and (self._best_step is None or checkpoint_step > self._best_step):
            self._best_step, self._restarts = checkpoint_step, 0
        if self._restarts >= self._limits.max_restarts:
            return GiveUp(self._no_restart_left(failure, checkpoint_step))
        self._restarts += 1
        return Restart(self._restarts, min(2 ** (self._restarts - 1), LONGEST_PAUSE_S))

    def _no_restart_left(self, failure: Failure, step: int | None) -> str:
        allowed = self._limits.max_restarts
        where = "without any checkpoint" if step is None else f"with no checkpoint after step {step}"
        who = "" if failure.rank is None else f"rank {failure.rank}: "
        limit = f"{allowed} restart{'s' * (allowed > 1)} in a row {where} (fault_tolerance.max_restarts)" if allowed else "no restarts"
        return f"{limit}; the last failure: {who}{failure.reason}"
