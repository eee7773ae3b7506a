"""The figures of a report: curves over steps, tokens or hours, one colour a run; the parts of a step; where the time went."""

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from launcher.report.curves import break_where_repeated, smooth, thin
from launcher.report.record import STEP_PARTS, RunRecord

RUN_COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#ec4899", "#8b5cf6", "#14b8a6", "#ef4444", "#84cc16")
_PART_COLOURS = dict(zip(STEP_PARTS, ("#3b82f6", "#8b5cf6", "#10b981", "#ef4444", "#94a3b8"), strict=True))
_SMOOTH_FROM = 100  # logged steps: fewer are shown as they are


@dataclass(frozen=True)
class Panel:
    """One figure of the page."""

    title: str
    figure: go.Figure
    note: str = ""
    is_wide: bool = False


@dataclass(frozen=True)
class _Curve:
    """Which column of metrics.jsonl a panel shows."""

    key: str
    title: str
    note: str = ""
    is_log: bool = False
    is_share: bool = False
    is_smoothed: bool = True
    is_dull_at: float | None = None  # not shown where it never has another value


_LEARNING = (
    _Curve("loss", "Loss", "nats a masked token; diamonds: held out"),
    _Curve("perplexity", "Perplexity", "exponential of the loss; diamonds: held out", is_log=True),
    _Curve("next_sentence_loss", "Next-sentence loss", "nats a pair"),
    _Curve("next_sentence_accuracy", "Next-sentence accuracy", is_share=True),
)
_UPDATES = (
    _Curve("lr", "Learning rate", is_smoothed=False),
    _Curve("grad_norm", "Gradient norm", "before clipping", is_log=True),
    _Curve("loss_scale", "Loss scale", "fp16", is_log=True, is_smoothed=False, is_dull_at=1.0),
    _Curve("skipped_steps", "Skipped updates", "so far, for an overflow", is_smoothed=False, is_dull_at=0.0),
)
_SPEED = (
    _Curve("tokens_per_s", "Tokens a second", "real tokens, the whole job"),
    _Curve("mfu", "Model FLOPs utilization", "share of the devices' peak", is_share=True),
    _Curve("tflops", "TFLOP/s", "of one process; the peak of this device is not known"),
    _Curve("data_wait_s", "Waiting for data", "seconds of a step"),
)


def sections(records: list[RunRecord]) -> list[tuple[str, list[Panel]]]:
    """(heading, panels) of the page; a column that no run has is left out."""
    has_mfu = any(np.isfinite(record.column("mfu")).any() for record in records)
    speed = [curve for curve in _SPEED if curve.key != ("tflops" if has_mfu else "mfu")]
    found = [
        ("Learning", _panels(records, _LEARNING)),
        ("Updates", _panels(records, _UPDATES)),
        ("Speed", _panels(records, speed) + [panel for record in records for panel in _step_parts(record, len(records) > 1)]),
    ]
    return [(heading, panels) for heading, panels in found if panels]


def _panels(records: list[RunRecord], curves) -> list[Panel]:
    return [_panel(curve, records) for curve in curves if any(_is_worth_showing(curve, record) for record in records)]


def _is_worth_showing(curve: _Curve, record: RunRecord) -> bool:
    values = record.column(curve.key)
    values = values[np.isfinite(values)]
    return bool(len(values)) and (curve.is_dull_at is None or bool((values != curve.is_dull_at).any()))


def _panel(curve: _Curve, records: list[RunRecord]) -> Panel:
    figure = go.Figure()
    for number, record in enumerate(records):
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        values = record.column(curve.key)
        if not len(values):
            continue
        is_smoothed = curve.is_smoothed and len(values) >= _SMOOTH_FROM
        figure.add_trace(_line(record, values, "as logged" if is_smoothed else "", colour, opacity=0.3 if is_smoothed else 1.0))
        if is_smoothed:
            window = max(5, len(values) // 50)
            figure.add_trace(_line(record, smooth(values, record.column("step"), window), f"mean of {window}", colour, width=2.2))
        if curve.key in ("loss", "perplexity"):
            _add_held_out(figure, record, colour, as_loss=curve.key == "loss")
            _add_not_finite(figure, record, values)
        if curve.key == "loss":
            _add_events(figure, record, values)
    figure.update_yaxes(
        type="log" if curve.is_log else "linear",
        tickformat=".0%" if curve.is_share else None,
        exponentformat="SI" if curve.is_log else None,
    )
    return Panel(curve.title, figure, curve.note)


def _line(record: RunRecord, values: np.ndarray, words: str, colour: str, opacity: float = 1.0, width: float = 1.6):
    """A curve over the logged steps, thinned, with a gap wherever the run went back to an earlier step."""
    steps = record.column("step")
    order = break_where_repeated(steps)
    broken = np.where(order >= 0, values[order], np.nan)
    kept = order[thin(broken)]
    y = np.where(kept >= 0, values[kept], np.nan)
    return go.Scatter(
        y=y.astype(np.float32),
        mode="lines+markers" if len(values) < 3 else "lines",
        line={"color": colour, "width": width},
        opacity=opacity,
        name=f"{record.name} {words}".strip(),
        **_places(record, steps[kept], record.column("time")[kept]),
    )


def _places(record: RunRecord, steps: np.ndarray, times: np.ndarray) -> dict:
    """x, and in `meta` the run and x on each of the axes that the page offers."""
    axes = {
        "step": steps.astype(np.float32 if len(steps) and steps.max() < 2**24 else np.float64),
        "tokens": record.tokens_at(steps).astype(np.float32),
        "hours": ((times - record.started_at) / 3600).astype(np.float32),
    }
    return {"x": axes["step"], "meta": {"run": record.name, "axes": axes}}


def _add_held_out(figure: go.Figure, record: RunRecord, colour: str, as_loss: bool) -> None:
    if evaluations := record.evaluations:
        times, steps, perplexities = (np.array(column, dtype=np.float64) for column in zip(*evaluations))
        with np.errstate(divide="ignore", invalid="ignore"):
            y = np.log(perplexities) if as_loss else perplexities
        marker = {"symbol": "diamond", "size": 8, "color": colour, "line": {"width": 1, "color": "white"}}
        name = f"{record.name} held out"
        line = {"color": colour, "width": 1, "dash": "dot"}
        places = _places(record, steps, times)
        figure.add_trace(go.Scatter(y=y.astype(np.float32), mode="markers+lines", marker=marker, line=line, name=name, **places))


def _add_not_finite(figure: go.Figure, record: RunRecord, values: np.ndarray) -> None:
    """Red crosses where the value is no number, at the height of the last one that was."""
    broken = np.flatnonzero(~np.isfinite(values))
    if len(broken):
        _add_marks(figure, record, broken[thin(broken.astype(float), 400)], values, "not finite", "x", "#ef4444")


def _add_events(figure: go.Figure, record: RunRecord, values: np.ndarray) -> None:
    """Triangles where the run was thrown back or lost a process."""
    times = record.column("time")
    events = record.events_named("rank_lost", "hang", "rolled_back", "checkpoint_rejected", "replicas_differ")[-200:]
    places = np.array([max(0, np.searchsorted(times, event["time"]) - 1) for event in events], dtype=int)
    if len(places):
        texts = [event["event"].replace("_", " ") for event in events]
        _add_marks(figure, record, places, values, "trouble", "triangle-down", "#f97316", texts)


def _add_marks(figure: go.Figure, record: RunRecord, places, values, words: str, symbol: str, colour: str, texts=None) -> None:
    finite = np.flatnonzero(np.isfinite(values))
    if not len(finite):
        return
    nearest = finite[np.maximum(0, np.searchsorted(finite, places, side="right") - 1)]
    figure.add_trace(
        go.Scatter(
            y=values[nearest].astype(np.float32),
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": colour},
            name=f"{record.name} {words}",
            text=texts,
            **_places(record, record.column("step")[places], record.column("time")[places]),
        )
    )


def _step_parts(record: RunRecord, is_one_of_several: bool) -> list[Panel]:
    """What a step's time consists of, as a stack; none where the run has logged none of the parts."""
    whole = record.column("step_time_s")
    parts = [(key, words) for key, words in STEP_PARTS.items() if np.isfinite(record.column(key)).any()]
    if len(parts) < 2 or len(whole) == 0:
        return []
    figure = go.Figure()
    order = thin(whole)
    for key, words in parts:
        y = np.nan_to_num(record.column(key)[order]).astype(np.float32)
        figure.add_trace(
            go.Scatter(
                y=y,
                mode="lines",
                stackgroup="parts",
                line={"width": 0.5, "color": _PART_COLOURS[key]},
                name=words,
                **_places(record, record.column("step")[order], record.column("time")[order]),
            )
        )
    figure.update_layout(showlegend=True)
    of = f", {record.name}" if is_one_of_several else ""
    return [Panel(f"Step time{of}", figure, "seconds, of rank 0; mean between two logged steps")]
