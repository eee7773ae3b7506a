"""Graph breaks of an encoder layer under torch.compile, with dropout on."""

from dataclasses import dataclass

from benchmarks.counting.training_step import real_layer
from robustbert.config import RunConfig


@dataclass(frozen=True)
class Graphs:
    """Into how many graphs torch.compile cuts a layer, and why: (reason, place) of each break."""

    num_graphs: int
    num_breaks: int
    reasons: tuple[tuple[str, str], ...]


def count_graphs(config: RunConfig) -> Graphs:
    """Of a layer in training, by torch._dynamo.explain; one graph and no break is what compiling wants."""
    import torch._dynamo as dynamo

    with real_layer(config) as (layer, arguments):
        dynamo.reset()
        found = dynamo.explain(layer)(*arguments)
        dynamo.reset()
    reasons = []
    for cause in found.break_reasons:
        frame = cause.user_stack[-1] if cause.user_stack else None
        place = f"{_short(frame.filename)}:{frame.lineno}" if frame else "?"
        reasons.append((str(cause.reason).splitlines()[0], place))
    return Graphs(found.graph_count, found.graph_break_count, tuple(reasons))


def describe_graphs(graphs: Graphs) -> list[str]:
    """As lines."""
    lines = [f"a layer under torch.compile, dropout on: {graphs.num_graphs} graphs, {graphs.num_breaks} breaks"]
    return lines + [f"  {reason[:100]} | {place}" for reason, place in graphs.reasons]


def _short(file: str) -> str:
    return file.partition("site-packages/")[2] or "/".join(file.rsplit("/", 3)[1:])
