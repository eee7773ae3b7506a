"""A sweep's result: per task the best setting by the median over seeds, its spread, and the paper's figures beside it."""

import statistics
from collections.abc import Iterable
from pathlib import Path

from robustbert.finetune.output import OutputFolder, write_json
from robustbert.finetune.published import COLUMNS, TABLES
from robustbert.finetune.sweep import Cell


def summarise(cells: Iterable[tuple[Cell, OutputFolder]]) -> dict[str, dict]:
    """Per task: all its settings with their scores, and the best one.

    A setting's scores are, per column of the paper, the values of its finished seeds, their median, and the least and the
    greatest of them. The best setting has the highest median of the task's watched score.
    """
    tasks: dict[str, dict[str, dict]] = {}
    for cell, output in cells:
        setting = tasks.setdefault(cell.task, {}).setdefault(
            cell.setting, {"setting": cell.values, "asked": 0, "results": []}
        )
        setting["asked"] += 1
        if (result := output.result()) is not None:
            setting["results"].append(result)
    return {task: _summarise_task(task, list(settings.values())) for task, settings in tasks.items()}


def _summarise_task(task: str, settings: list[dict]) -> dict:
    rows = []
    for setting in settings:
        results = setting["results"]
        row = {"setting": setting["setting"], "asked": setting["asked"], "seeds": [result["seed"] for result in results]}
        if results:
            row["watched"] = statistics.median(result["watched"]["value"] for result in results)
            row["scores"] = _scores(task, results)
        rows.append(row)
    done = [row for row in rows if row["seeds"]]
    best = max(done, key=lambda row: row["watched"], default=None)
    start = next((result["start_from"] for setting in settings for result in setting["results"]), "")
    return {"best": best, "settings": rows, "start_from": start}


def _scores(task: str, results: list[dict]) -> dict[str, dict]:
    scores = {}
    for column in COLUMNS[task]:
        found = [result["metrics"].get(column.split, {}).get(column.metric) for result in results]
        values = [100 * value for value in found if value is not None]
        if values:
            scores[column.title] = {
                "median": statistics.median(values),
                "least": min(values),
                "greatest": max(values),
                "values": values,
            }
    return scores


def write_table(folder: Path, summary: dict[str, dict]) -> str:
    """Write table.json and table.md into the folder; returns the Markdown."""
    published = {name: {model: _of_tasks(row, summary) for model, row in rows.items()} for name, rows in TABLES.items()}
    write_json(folder / "table.json", {"tasks": summary, "published": published})
    text = "\n".join(_markdown(summary))
    (folder / "table.md").write_text(text, encoding="utf-8")
    return text


def _markdown(summary: dict[str, dict]) -> list[str]:
    titles = list(dict.fromkeys(title for task in summary.values() if task["best"] for title in task["best"]["scores"]))
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    ours = {title: score for task in summary.values() if task["best"] for title, score in task["best"]["scores"].items()}
    lines.append("| **this model**, median | " + " | ".join(f"**{ours[title]['median']:.1f}**" for title in titles) + " |")
    spreads = (f"{ours[title]['least']:.1f} to {ours[title]['greatest']:.1f}" for title in titles)
    lines.append("| least to greatest | " + " | ".join(spreads) + " |")
    for name, rows in TABLES.items():
        for model, row in rows.items():
            if any(title in row for title in titles):
                figures = (f"{row[title]:.1f}" if title in row else "-" for title in titles)
                lines.append(f"| paper, {name}: {model} | " + " | ".join(figures) + " |")
    lines += ["", "| task | setting | seeds | median | least to greatest |", "|---|---|---|---|---|"]
    for task, content in summary.items():
        for row in content["settings"]:
            lines.append(_setting_line(task, row, row is content["best"], bool(content["start_from"])))
    return [*lines, ""]


def _setting_line(task: str, row: dict, is_best: bool, is_from_mnli: bool) -> str:
    setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items()) or "default"
    name = f"{task}, from a finetuned model" if is_from_mnli else task
    seeds = f"{len(row['seeds'])}" + ("" if len(row["seeds"]) == row["asked"] else f" of {row['asked']}")
    if not row["seeds"]:
        return f"| {name} | {setting} | {seeds} | - | - |"
    if not row["scores"]:  # the set that the paper shows is not there: the score by which epochs are chosen
        return f"| {name} | {setting} | {seeds} | {100 * row['watched']:.1f} (development set) | - |"
    score = next(iter(row["scores"].values()))
    median = f"**{score['median']:.1f}**" if is_best else f"{score['median']:.1f}"
    return f"| {name} | {setting} | {seeds} | {median} | {score['least']:.1f} to {score['greatest']:.1f} |"


def _of_tasks(row: dict[str, float], summary: dict[str, dict]) -> dict[str, float]:
    titles = {column.title for task in summary for column in COLUMNS[task]}
    return {title: figure for title, figure in row.items() if title in titles}
