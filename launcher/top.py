"""`launcher top`: one run, live in the terminal: how far, how well, how fast, what is wrong, what has happened."""

import argparse
import time
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.event_text import event_line
from launcher.live_metrics import LiveMetrics, scrape_supervisor
from launcher.report.findings import BAD, WARNING, find_all
from launcher.report.record import STEP_PARTS, RunRecord, is_number
from launcher.run_lookup import find_run
from launcher.run_status import way_on
from robustbert.config import ConfigError
from robustbert.durations import duration

NUM_EVENTS = 6
_STATE_STYLES = {"running": "green", "finished": "green", "failed": "red", "interrupted": "red", "queued": "blue"}
_LEVEL_STYLES = {BAD: "bold red", WARNING: "yellow"}
_LEAST_INTERVAL_S = 0.2


def top(options: argparse.Namespace) -> int:
    """Draw the run every options.interval seconds until it ends or Ctrl-C; once with options.once."""
    if not options.interval >= _LEAST_INTERVAL_S:
        raise ConfigError(f"--interval must be at least {_LEAST_INTERVAL_S} s, it is {options.interval:g}")
    run = find_run(options.run, Path(options.dir))
    record, console = RunRecord(run), Console()
    if options.once:
        console.print(frame(record, scrape_supervisor(run)))
        return 0
    with Live(frame(record, scrape_supervisor(run)), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while record.status.is_alive:
                time.sleep(options.interval)
                record.refresh()
                live.update(frame(record, scrape_supervisor(run)), refresh=True)
        except KeyboardInterrupt:
            return 0
    if console.is_terminal:  # the alternate screen has gone, with what it showed
        console.print(frame(record, None))
    return 0


def frame(record: RunRecord, live: LiveMetrics | None) -> Panel:
    """The whole picture of one moment; live: what the run's exporter says, None where none answers."""
    status = record.status
    style = _STATE_STYLES.get(status.state, "yellow")
    title = Text.assemble((status.name, "bold"), "  ", (status.state, f"bold {style}"))
    parts = [
        _progress(record, style),
        Text(),
        Columns([_table(_learning(record)), _table(_speed(record)), _table(_whereabouts(record, live))], padding=(0, 4)),
        Text(),
        *_findings(record),
        Text(),
        _events(record),
        Text(way_on(status), style="dim"),
    ]
    return Panel(Group(*parts), title=title, title_align="left", border_style=style)


def _progress(record: RunRecord, style: str) -> Table:
    status = record.status
    left = "" if status.left_s is None else f"{duration(status.left_s)} left"
    total = status.total_steps
    row = Table.grid(padding=(0, 2))
    words = f"step {status.step:,} of {'?' if total is None else f'{total:,}'}"
    share = f"{status.step / total:.1%}" if total else ""
    row.add_row(ProgressBar(total=total or 1, completed=min(status.step, total or 0), width=40, complete_style=style), words, share, left)
    return row


def _learning(record: RunRecord) -> list[tuple[str, str]]:
    newest = record.metrics[-1] if record.metrics else {}
    rows = [
        (words, _number(newest.get(key), pattern))
        for words, key, pattern in (
            ("loss", "loss", "{:.4f}"),
            ("perplexity", "perplexity", "{:,.2f}"),
            ("learning rate", "lr", "{:.2e}"),
            ("gradient norm", "grad_norm", "{:.3f}"),
            ("loss scale", "loss_scale", "{:g}"),
            ("updates skipped", "skipped_steps", "{:,.0f}"),
        )
    ]
    if record.evaluations:
        rows.insert(2, ("held out", f"{record.evaluations[-1][2]:,.2f} at step {record.evaluations[-1][1]:,}"))
    return rows


def _speed(record: RunRecord) -> list[tuple[str, str]]:
    newest = record.metrics[-1] if record.metrics else {}
    mfu = newest.get("mfu")
    whole = newest.get("step_time_s")
    rows = [
        ("tokens/s", _number(newest.get("tokens_per_s"), "{:,.0f}")),
        ("MFU", f"{mfu:.1%}" if is_number(mfu) else _number(newest.get("tflops"), "{:.3g} TFLOP/s")),
        ("step", _number(whole, "{:.3f} s")),
    ]
    for key, words in STEP_PARTS.items():
        if is_number(newest.get(key)) and whole:
            share = newest[key] / whole
            rows.append((f"  {words}", f"{newest[key]:.3f} s {'█' * round(12 * min(1.0, share))} {share:.0%}"))
    return rows


def _whereabouts(record: RunRecord, live: LiveMetrics | None) -> list[tuple[str, str]]:
    saved = [checkpoint for checkpoint in record.checkpoints if checkpoint.outcome in ("kept", "removed")]
    account = record.time_account
    rows = [
        ("checkpoint", f"step {saved[-1].step:,}, {duration(record.read_at - saved[-1].time)} ago" if saved else "none yet"),
        ("last log", f"{duration(record.read_at - record.metrics[-1]['time'])} ago" if record.metrics else "-"),
        ("goodput", "-" if account.goodput is None else f"{account.goodput:.1%} of {duration(account.elapsed_s)}"),
        ("restarts", str(len(record.events_named("restarted")))),
    ]
    if live is not None:
        rows += [
            ("processes up", f"{live.num_up} of {live.num_ranks}"),
            ("nodes", f"{live.num_nodes}" + (f", {live.num_left_out} left out" if live.num_left_out else "")),
        ]
        if live.slowest_rank is not None:
            rows.append(("slowest", f"rank {live.slowest_rank}, {live.slowest_ratio:.2f} x its stage's median"))
        if live.silent:
            rows.append(("silent", ", ".join(map(str, live.silent[:8])) + (" ..." if len(live.silent) > 8 else "")))
    return rows


def _findings(record: RunRecord) -> list[Text]:
    found = find_all(record)
    if not found:
        return [Text("nothing is wrong", style="green")]
    return [
        Text.assemble((f"{finding.level:8}", _LEVEL_STYLES.get(finding.level, "blue")), finding.text, ("  " + finding.way, "cyan"))
        for finding in found
    ]


def _events(record: RunRecord) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in record.events[-NUM_EVENTS:]:
        if line := event_line(event):
            table.add_row(Text(time.strftime("%m-%d %H:%M:%S", time.localtime(event["time"])), style="dim"), Text(line))
    return table


def _table(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 1))
    for words, value in rows:
        table.add_row(Text(words, style="dim"), Text(value))
    return table


def _number(value, pattern: str) -> str:
    return pattern.format(value) if is_number(value) else "-"
