"""The tables of a report as HTML: the head of each run, its checkpoints, its events, the configurations and how they differ."""

import html
import math
import time

from launcher.event_text import event_line
from launcher.report.figures import RUN_COLOURS
from launcher.report.findings import find_all
from launcher.report.record import Checkpoint, RunRecord, is_number
from robustbert.durations import duration

_MAX_ROWS = 500  # of a table: the newest ones


def run_head(record: RunRecord, number: int) -> str:
    """State, progress, the figures that matter, and what is wrong, of one run."""
    status, colour = record.status, RUN_COLOURS[number % len(RUN_COLOURS)]
    total = status.total_steps
    share = min(1.0, status.step / total) if total else 0.0
    findings = find_all(record)
    items = "".join(
        f'<li class="{finding.level}"><b>{finding.level}</b><span>{_text(finding.text)}'
        + (f" <code>{_text(finding.way)}</code>" if finding.way else "")
        + "</span></li>"
        for finding in findings
    )
    figures = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in _figures(record))
    worst = findings[0].level if findings else "good"
    return (
        f'<article class="run {worst if status.state != "finished" or worst == "bad" else "good"}" style="--run:{colour}">'
        f'<header><h2>{_text(record.name)}</h2><span class="state {_text(status.state)}">{_text(status.state)}</span>'
        f"<span class=where>{_text(status.run.path)}</span></header>"
        f'<div class=progress><div style="width:{share:.1%}"></div></div>'
        f"<p class=step>step <b>{status.step:,}</b> of {'?' if total is None else f'{total:,}'} ({share:.0%})"
        f"{'' if status.left_s is None else f', {duration(status.left_s)} left'}</p>"
        f"<dl>{figures}</dl>"
        f"<ul class=findings>{items or '<li class=good><b>good</b><span>nothing is wrong</span></li>'}</ul></article>"
    )


def _figures(record: RunRecord) -> list[tuple[str, str]]:
    status, account = record.status, record.time_account
    found = [("training loss", _number(status.loss, "{:.4f}")), ("perplexity", _number(status.perplexity, "{:,.2f}"))]
    if record.evaluations:
        _, step, perplexity = record.evaluations[-1]
        found.append(("held-out perplexity", f"{perplexity:,.2f} (step {step:,})"))
    for event in record.events_named("finished")[-1:]:
        found.append(("by token frequency alone", _number(event.get("unigram_perplexity"), "{:,.2f}")))
    newest = record.metrics[-1] if record.metrics else {}
    found.append(("tokens/s", _number(newest.get("tokens_per_s"), "{:,.0f}")))
    if is_number(newest.get("mfu")):
        found.append(("MFU", f"{newest['mfu']:.1%}"))
    found.append(("tokens", _number(newest.get("tokens"), "{:,.0f}")))
    found.append(("time since submission", duration(account.elapsed_s)))
    found.append(("goodput", "-" if account.goodput is None else f"{account.goodput:.1%}"))
    saved = [checkpoint for checkpoint in record.checkpoints if checkpoint.outcome == "kept"]
    age = f"step {saved[-1].step:,}, {duration(record.read_at - saved[-1].time)} ago" if saved else "none yet"
    found.append(("last checkpoint", age))
    if record.metrics:
        found.append(("last logged step", f"{duration(record.read_at - newest['time'])} ago"))
    found.append(("restarts", str(len(record.events_named("restarted")))))
    return found


def checkpoint_table(records: list[RunRecord]) -> str:
    """Every save, failure and rejection."""
    rows = []
    for record in records:
        for checkpoint in record.checkpoints[-_MAX_ROWS:]:
            rows.append((record.name, *_checkpoint_cells(checkpoint)))
    headings = ("run", "time", "step", "outcome", "size", "duration", "training stood still", "reason")
    return _table(headings, rows, classes=lambda row: row[3]) if rows else "<p>No checkpoint has been written yet.</p>"


def _checkpoint_cells(checkpoint: Checkpoint) -> tuple[str, ...]:
    return (
        _clock(checkpoint.time),
        "?" if checkpoint.step is None else f"{checkpoint.step:,}",
        checkpoint.outcome,
        _bytes(checkpoint.bytes),
        _number(checkpoint.seconds, "{:.2f} s"),
        _number(checkpoint.stalled_s, "{:.3f} s"),
        checkpoint.reason,
    )


def event_table(records: list[RunRecord]) -> str:
    """The events that a reader needs, newest first."""
    rows = [
        (record.name, _clock(event["time"]), line)
        for record in records
        for event in reversed(record.events[-_MAX_ROWS:])
        if (line := event_line(event))
    ]
    return _table(("run", "time", "event"), rows) if rows else "<p>No event yet.</p>"


def configuration_table(records: list[RunRecord]) -> str:
    """Every key; with several runs those that differ come first and are marked."""
    configs = [record.flat_config() for record in records]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = [(key, *(_value(config.get(key, "-")) for config in configs)) for key in keys]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    named = [(row[0] == "run.name", row) for row in rows]  # it always differs
    rows = [row for is_name, row in named if not is_name]
    if not rows:
        return "<p>No configuration could be read.</p>"
    headings = ("key", *(record.name for record in records))
    return _table(headings, rows, classes=lambda row: "differs" if len(set(row[1:])) > 1 else "same")


def differences(records: list[RunRecord]) -> int:
    """How many keys of the configurations differ, the name aside."""
    configs = [record.flat_config() for record in records if record.config]
    keys = {key for config in configs for key in config} - {"run.name"}
    return sum(len({_value(config.get(key)) for config in configs}) > 1 for key in keys)


def _table(headings: tuple[str, ...], rows: list[tuple], classes=lambda row: "") -> str:
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join(
        f'<tr class="{_text(classes(row))}">' + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value) -> str:
    return html.escape(str(value))


def _number(value, pattern: str) -> str:
    if not is_number(value):
        return "-"
    return pattern.format(value) if math.isfinite(value) else str(value)


def _bytes(value) -> str:
    if not is_number(value):
        return "-"
    return f"{value / 1e9:,.2f} GB" if value >= 1e9 else f"{value / 1e6:,.1f} MB"


def _value(value) -> str:
    return ", ".join(map(str, value)) or "[]" if isinstance(value, (list, tuple)) else str(value)


def _clock(seconds: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.localtime(seconds))
