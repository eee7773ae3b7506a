"""Which nodes a job runs on: the first healthy ones of those given, spare ones in place of what failed, fewer where allowed."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from robustbert.config import ConfigError, RunConfig

THIS_MACHINE = "localhost"  # what the scheduler `local` calls its node: it needs no check
_CHECKS_AT_ONCE = 32


class TooFewNodes(ValueError):
    """Not enough healthy nodes for any layout that the configuration allows; the message names those left out."""


@dataclass
class NodePool:
    """The nodes of one supervision. `check`: what is wrong with a node, None where it is fit; asked before every start."""

    config: RunConfig
    names: list[str]
    check: Callable[[str], str | None]
    on_left_out: Callable[[str, str], None]  # (node, reason): called when a node is newly left out
    failures: Counter = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)

    def report_failure(self, node: str | None, is_certain: bool = False) -> None:
        """A process on the node was the first to fail. is_certain: the node itself is at fault, once is enough."""
        node = next((name for name in self.names if _short(name) == _short(node or "")), None)
        if node is None or len(self.names) == 1:  # unknown, or there is nothing else to run on
            return
        self.failures[node] += 1
        if is_certain:
            self._leave_out(node, "its memory or its arithmetic is at fault")
        elif self.failures[node] >= self.config.fault_tolerance.max_node_failures:
            times = "once" if self.failures[node] == 1 else f"{self.failures[node]} times"
            self._leave_out(node, f"failed {times} (fault_tolerance.max_node_failures)")

    def choose(self) -> list[str]:
        """The nodes for the next attempt: cluster.nodes of them, or the most that a valid layout can use.

        TooFewNodes where that is below fault_tolerance.min_nodes (default: cluster.nodes). A node that fails its check
        is left out of this attempt only: it may be back at the next one.
        """
        wanted = self.config.cluster.nodes
        if self.names == [THIS_MACHINE]:
            return self.names
        candidates = [name for name in self.names if name not in self.left_out]
        with ThreadPoolExecutor(_CHECKS_AT_ONCE) as threads:
            faults = dict(zip(candidates, threads.map(self.check, candidates)))
        unfit = {name: fault for name, fault in faults.items() if fault is not None}
        fit = [name for name in candidates if name not in unfit][:wanted]
        for name, fault in unfit.items():
            self.on_left_out(name, fault)
        least = self.config.fault_tolerance.min_nodes or wanted
        for number in range(len(fit), least - 1, -1):
            if self._is_layout(number):
                return fit[:number]
        reasons = "; ".join(f"{name}: {reason}" for name, reason in (self.left_out | unfit).items())
        raise TooFewNodes(
            f"{len(fit)} of {len(self.names)} node{'s are' if len(self.names) > 1 else ' is'} left and the run needs {least} (cluster.nodes, or "
            f"fault_tolerance.min_nodes for fewer) in a layout that divides; left out: {reasons or 'none'}"
        )

    def _leave_out(self, node: str, reason: str) -> None:
        if node not in self.left_out:
            self.left_out[node] = reason
            self.on_left_out(node, reason)

    def _is_layout(self, num_nodes: int) -> bool:
        try:
            self.config.data_parallel_size(num_nodes * self.config.cluster.processes_per_node)
            return num_nodes > 0
        except ConfigError:
            return False


def _short(name: str) -> str:
    """A host may call itself by its full name where the configuration has the short one; addresses stay as they are."""
    return name if name.replace(".", "").isdigit() else name.partition(".")[0]
