"""Which nodes are fit, from what they told: pure functions."""

import statistics
from collections import Counter
from dataclasses import dataclass

MOST_CLOCK_DIFFERENCE_S = 5.0
_LEAST_TO_JUDGE_BY_MEDIAN = 3
_NAMES = {"matmul_flops_per_s": "matrix products", "memory_bytes_per_s": "memory", "disk_bytes_per_s": "the disk"}


@dataclass(frozen=True)
class Answer:
    """What came back from a node: its report (node_check.measure_node), or why there is none."""

    node: str
    report: dict | None
    error: str | None = None
    clock_difference_s: float = 0.0
    clock_uncertainty_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """`reasons` against a node; none: it is fit."""

    node: str
    reasons: tuple[str, ...]

    @property
    def is_fit(self) -> bool:
        return not self.reasons


def judge(answers: list[Answer], slow_below: float) -> list[Verdict]:
    """Every node's verdict. Slow is a rate below that share of the median over all nodes' devices.

    Where fewer than three nodes answered, the best rate stands for the median.
    """
    reports = [answer.report for answer in answers if answer.report]
    usual_rates = {
        name: _usual([rate for r in reports for rate in _rates(r, name)], by_median=len(reports) >= _LEAST_TO_JUDGE_BY_MEDIAN)
        for name in _NAMES
    }
    names = sorted({name for report in reports for name in report["versions"]})
    usual_versions = {n: Counter(r["versions"].get(n, "not there") for r in reports).most_common(1)[0][0] for n in names}
    return [Verdict(answer.node, tuple(_reasons(answer, usual_rates, usual_versions, slow_below))) for answer in answers]


def _reasons(answer: Answer, usual_rates: dict, usual_versions: dict, slow_below: float):
    if answer.report is None:
        yield answer.error or "no answer"
        return
    yield from answer.report["faults"]
    for name, usual in usual_versions.items():
        found = answer.report["versions"].get(name, "not there")
        if found != usual:
            yield f"{name} {found}, the others have {usual}"
    for name, rate in answer.report["rates"].items():
        if usual_rates[name] and rate < slow_below * usual_rates[name]:
            devices = _rates(answer.report, name)
            slow = [str(number) for number, one in enumerate(devices) if one < slow_below * usual_rates[name]]
            where = f" (GPU {', '.join(slow)})" if len(devices) > 1 else ""
            yield f"slow: {_NAMES[name]} at {rate / usual_rates[name]:.0%} of the usual rate{where}"
    if abs(answer.clock_difference_s) - answer.clock_uncertainty_s > MOST_CLOCK_DIFFERENCE_S:
        yield f"its clock is {answer.clock_difference_s:+.0f} s off (give or take {answer.clock_uncertainty_s:.1f} s)"


def _rates(report: dict, name: str) -> list[float]:
    """Those of all devices where each has one, otherwise the node's."""
    devices = [device[name] for device in report.get("devices", ()) if device and name in device]
    return devices or [report["rates"][name]] if name in report["rates"] else []


def _usual(rates: list[float], by_median: bool) -> float | None:
    if not rates:
        return None
    return statistics.median(rates) if by_median else max(rates)
