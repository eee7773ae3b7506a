"""Puts a report together: one HTML file with its figures, its styles and the library that draws them, for any browser."""

import html
import json
import time
from importlib.resources import files

import plotly.io
from plotly.offline import get_plotlyjs

from launcher.report import tables, timeline
from launcher.report.figures import RUN_COLOURS, Panel, sections
from launcher.report.record import RunRecord


def build_page(records: list[RunRecord]) -> str:
    """The whole page. It refers to nothing outside of itself."""
    figures: list[str] = []

    def figure_place(panel: Panel) -> str:
        figures.append(plotly.io.to_json(panel.figure, validate=False))
        note = f"<small>{html.escape(panel.note)}</small>" if panel.note else ""
        wide = " wide" if panel.is_wide else ""
        return f'<figure class="panel{wide}"><figcaption>{html.escape(panel.title)}{note}</figcaption><div class=plot></div></figure>'

    parts = [_section("Time", timeline.panels(records), figure_place)]
    parts += [_section(heading, panels, figure_place) for heading, panels in sections(records)]
    differing = tables.differences(records)
    parts += [
        _folding("Checkpoints", tables.checkpoint_table(records), is_open=True),
        _folding(f"Configuration{f': {differing} keys differ' if len(records) > 1 else ''}", tables.configuration_table(records)),
        _folding("Events", tables.event_table(records)),
    ]
    names = ", ".join(record.name for record in records)
    values = {
        "TITLE": html.escape(names),
        "WRITTEN": time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(max(record.read_at for record in records))),
        "STYLE": _asset("page.css"),
        "LEGEND": _legend(records),
        "RUNS": "".join(tables.run_head(record, number) for number, record in enumerate(records)),
        "BODY": "".join(parts),
        "PLOTLY": get_plotlyjs(),
        "FIGURES": f"[{','.join(figures)}]".replace("</", "<\\/"),
        "SCRIPT": _asset("page.js"),
    }
    page = []
    for number, piece in enumerate(_asset("page.html").split("@@")):  # every second piece is the name of a value
        page.append(values[piece] if number % 2 else piece)
    return "".join(page)


def _legend(records: list[RunRecord]) -> str:
    if len(records) == 1:
        return ""
    return "".join(
        f'<button class="chip on" data-run="{html.escape(json.dumps(record.name))}" '
        f'style="--run:{RUN_COLOURS[number % len(RUN_COLOURS)]}">{html.escape(record.name)}</button>'
        for number, record in enumerate(records)
    )


def _section(heading: str, panels: list[Panel], figure_place) -> str:
    return f"<h3>{heading}</h3><div class=panels>{''.join(map(figure_place, panels))}</div>" if panels else ""


def _folding(heading: str, content: str, is_open: bool = False) -> str:
    return f"<details{' open' if is_open else ''}><summary>{html.escape(heading)}</summary><div class=scroll>{content}</div></details>"


def _asset(name: str) -> str:
    return files("launcher.report").joinpath("assets", name).read_text(encoding="utf-8")
