"""The table that ends the script, and the lines printed on the way; at most WIDTH columns."""

import textwrap

from benchmarks.gpu.stages import STAGES, Outcome

WIDTH = 108
_LONGEST_TEXT = 300  # characters of a stage's line in the table; all of it is in the JSON


def progress_line(outcome: Outcome, total_s: float) -> str:
    """What is printed as soon as a stage has ended."""
    return f"[{total_s:4.0f} s] {outcome.stage.name:12} {outcome.result:8} {outcome.seconds:5.0f} s  {outcome.text}"


def describe(outcomes: list[Outcome], title: str, is_rehearsal: bool = False) -> list[str]:
    """The table: a row a stage, then the tables that stages have recorded; a rehearsal's say so, each of them."""
    order = {stage.name: number for number, stage in enumerate(STAGES)}
    ordered = sorted(outcomes, key=lambda outcome: order.get(outcome.stage.name, len(order)))
    mark = " (rehearsal, no figures)" if is_rehearsal else ""
    lines = [title, *_stage_rows(ordered)]
    for outcome in ordered:
        for table in outcome.values.get("tables", ()):
            lines += ["", table["title"][: WIDTH - len(mark)] + mark, *rows(table["columns"], table["rows"])]
    counts = {result: sum(o.result == result for o in outcomes) for result in ("ok", "failed", "error", "killed", "skipped")}
    lines += ["", "  ".join(f"{count} {result}" for result, count in counts.items() if count)]
    return lines


def rows(columns: list[str], cells: list[list]) -> list[str]:
    """Columns as wide as their widest cell; the first to the left, the others to the right."""
    text = [[str(cell) for cell in row] for row in [columns, *cells]]
    widths = [max(len(row[i]) for row in text) for i in range(len(columns))]
    lines = []
    for row in text:
        line = "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        lines.append(line.rstrip()[:WIDTH])
    return lines


def _stage_rows(outcomes: list[Outcome]) -> list[str]:
    head = f"{'stage':12} {'result':8} {'s':>4}  "
    lines = [head.rstrip()]
    for outcome in outcomes:
        text = outcome.text if len(outcome.text) <= _LONGEST_TEXT else outcome.text[: _LONGEST_TEXT - 4] + " ..."
        wrapped = textwrap.wrap(text, WIDTH - len(head), break_long_words=True) or [""]
        lines.append(f"{outcome.stage.name:12} {outcome.result:8} {outcome.seconds:4.0f}  {wrapped[0]}".rstrip())
        lines += [" " * len(head) + line for line in wrapped[1:]]
    return lines
