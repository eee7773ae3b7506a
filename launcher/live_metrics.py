"""What a running run's exporter says of its processes, asked directly: `launcher top` needs no Prometheus."""

import json
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from launcher.exporters.targets import targets_file
from robustbert.run_directory import RunDirectory

_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class LiveMetrics:
    """The processes of a run at this moment."""

    num_ranks: int
    silent: list[int]  # ranks that give no sign of life
    num_nodes: int
    num_left_out: int
    slowest_rank: int | None
    slowest_ratio: float | None

    @property
    def num_up(self) -> int:
        return self.num_ranks - len(self.silent)


def scrape_supervisor(run: RunDirectory) -> LiveMetrics | None:
    """Ask the exporter of the run's supervisor; None where there is none, or it does not answer."""
    address = _supervisor_address(run)
    if address is None:
        return None
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=_TIMEOUT_S) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (OSError, ValueError):
        return None
    values = {sample.name: sample.value for sample in samples if not sample.labels}
    up = {int(sample.labels["rank"]): sample.value for sample in samples if sample.name == "robustbert_rank_up"}
    slowest = values.get("robustbert_slowest_rank")
    return LiveMetrics(
        num_ranks=int(values.get("robustbert_processes", len(up))),
        silent=sorted(rank for rank, value in up.items() if not value),
        num_nodes=int(values.get("robustbert_nodes", 0)),
        num_left_out=int(values.get("robustbert_nodes_left_out", 0)),
        slowest_rank=None if slowest is None else int(slowest),
        slowest_ratio=values.get("robustbert_slowest_rank_ratio"),
    )


def _supervisor_address(run: RunDirectory) -> str | None:
    """As the run has written it for Prometheus' discovery."""
    try:
        groups = json.loads(targets_file(run).read_text(encoding="utf-8"))
        return next(group["targets"][0] for group in groups if group["labels"]["role"] == "supervisor")
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration):
        return None
