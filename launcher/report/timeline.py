"""The figures about a run's time: its activities and events on a time line, and how much each activity took."""

import datetime
import html
import textwrap

import numpy as np
import plotly.graph_objects as go

from launcher.event_text import event_line
from launcher.report.figures import Panel
from launcher.report.record import RunRecord
from robustbert.durations import duration

COLOURS = {
    "training": "#10b981",
    "lost": "#ef4444",
    "checkpointing": "#8b5cf6",
    "evaluating": "#3b82f6",
    "starting": "#f59e0b",
    "waiting": "#94a3b8",
}
_MAX_SPANS = 600  # of one run: more than a screen can show
_MAX_EVENTS = 400
_TROUBLE = {"rank_lost", "hang", "failed", "checkpoint_failed", "checkpoint_rejected", "replicas_differ", "straggler", "node_left_out"}
_TROUBLE |= {"rolled_back", "summary_failed"}


def panels(records: list[RunRecord]) -> list[Panel]:
    """The time line, and the share of each activity; none where no run has a record of time."""
    records = [record for record in records if record.time_account.spans]
    return [_time_line(records), _shares(records)] if records else []


def _time_line(records: list[RunRecord]) -> Panel:
    figure = go.Figure()
    shown = set()
    for record in records:
        spans = coarsen(record.time_account.spans, _MAX_SPANS)
        for activity, colour in COLOURS.items():
            own = [(start, stop) for start, stop, name in spans if name == activity]
            if own:
                starts, stops = np.array(own).T
                figure.add_trace(
                    go.Bar(
                        orientation="h",
                        y=[record.name] * len(own),
                        base=[_moment(start) for start in starts],
                        x=(stops - starts) * 1000,  # a date axis counts milliseconds
                        marker={"color": colour, "line": {"width": 0}},
                        name=activity,
                        legendgroup=activity,
                        showlegend=activity not in shown,
                        text=[f"{activity}, {duration(stop - start)}" for start, stop in own],
                        textposition="none",
                        hovertemplate="%{text}<extra></extra>",
                        width=0.5,
                    )
                )
                shown.add(activity)
        _add_events(figure, record)
    figure.update_layout(
        barmode="overlay", showlegend=True, height=150 + 46 * len(records), hovermode="closest", bargap=0.2,
        xaxis={"type": "date"}, yaxis={"autorange": "reversed", "type": "category"},
    )  # fmt: skip
    return Panel("Time line", figure, "events: red triangles are trouble, point at them", is_wide=True)


def _add_events(figure: go.Figure, record: RunRecord) -> None:
    lines = [(event, event_line(event)) for event in record.events[-_MAX_EVENTS:]]
    for is_trouble, symbol, colour, size in ((False, "circle", "#64748b", 6), (True, "triangle-up", "#ef4444", 11)):
        own = [(event, line) for event, line in lines if line and (event["event"] in _TROUBLE) == is_trouble]
        if own:
            figure.add_trace(
                go.Scatter(
                    x=[_moment(event["time"]) for event, _ in own],
                    y=[record.name] * len(own),
                    mode="markers",
                    marker={"symbol": symbol, "color": colour, "size": size, "line": {"width": 1, "color": "white"}},
                    text=[_wrap(line) for _, line in own],
                    hovertemplate="%{x|%m-%d %H:%M:%S}<br>%{text}<extra></extra>",
                    showlegend=False,
                )
            )


def _shares(records: list[RunRecord]) -> Panel:
    figure = go.Figure()
    names = [record.name for record in records]
    for activity, colour in COLOURS.items():
        seconds = [record.time_account.seconds[activity] for record in records]
        if any(seconds):
            shares = [own / max(record.time_account.elapsed_s, 1e-9) for own, record in zip(seconds, records)]
            texts = [f"{share:.1%}" if share > 0.04 else "" for share in shares]
            hover = [f"{activity}: {duration(own)}, {share:.2%}" for own, share in zip(seconds, shares)]
            figure.add_trace(
                go.Bar(
                    orientation="h", y=names, x=shares, name=activity, marker={"color": colour}, text=texts, customdata=hover,
                    textposition="inside", insidetextanchor="middle", hovertemplate="%{customdata}<extra></extra>", width=0.5,
                )
            )  # fmt: skip
    figure.update_layout(
        barmode="stack", showlegend=True, height=150 + 46 * len(records), hovermode="closest",
        xaxis={"tickformat": ".0%", "range": [0, 1]}, yaxis={"autorange": "reversed", "type": "category"},
    )  # fmt: skip
    note = "goodput is the share of training: steps computed for the first time, of the time since submission"
    return Panel("Where the time went", figure, note, is_wide=True)


def coarsen(spans: list[tuple[float, float, str]], max_spans: int) -> list[tuple[float, float, str]]:
    """At most `max_spans` spans of the same whole time; each cell of it takes the activity that fills most of it."""
    if len(spans) <= max_spans:
        return spans
    edges = np.linspace(spans[0][0], spans[-1][1], max_spans + 1)
    cells = [dict.fromkeys(COLOURS, 0.0) for _ in range(max_spans)]
    for start, stop, activity in spans:
        first, last = np.searchsorted(edges, (start, stop), side="right") - 1
        for cell in range(max(0, first), min(last, max_spans - 1) + 1):
            cells[cell][activity] += max(0.0, min(stop, edges[cell + 1]) - max(start, edges[cell]))
    return [(edges[cell], edges[cell + 1], max(cells[cell], key=cells[cell].get)) for cell in range(max_spans)]


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds)


def _wrap(text: str, width: int = 90) -> str:
    lines = textwrap.wrap(text, width, max_lines=5, placeholder=" ...")
    return "<br>".join(html.escape(line) for line in lines)
