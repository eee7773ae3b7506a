"""What tools/finetune does: one finetuning, a sweep with its table, an ensemble, a submission to GLUE's leaderboard."""

import argparse
import importlib.util
import warnings
from dataclasses import replace
from pathlib import Path

from robustbert.finetune.cli import given_settings
from robustbert.finetune.ensemble import best_members, open_ensembles
from robustbert.finetune.folders import encoder_folder, read_sets, task_folder
from robustbert.finetune.output import OutputFolder, write_json
from robustbert.finetune.progress import build_view
from robustbert.finetune.settings import FinetuneError, option_name
from robustbert.finetune.submission import TEST_ROWS, write_zip
from robustbert.finetune.sweep import (
    DEFAULT_SEEDS,
    Cell,
    SweepRequest,
    chosen_model,
    chosen_start,
    grid_cells,
    parse_grid,
    read_cells,
    run_sweep,
)
from robustbert.finetune.table import summarise, write_table
from robustbert.finetune.task import Task
from robustbert.finetune.tasks import FROM_MNLI, GLUE, build_task
from robustbert.job import Job

_EXTRA = ("sklearn", "scipy")
SOME_FAILED = 1  # the launcher's exit code of a sweep that ran, with members that failed


def finetune_one(options: argparse.Namespace, job: Job) -> int:
    """One model on one task."""
    from robustbert.finetune.finetune import Request, finetune

    _prepare_libraries()
    task = build_task(options.task)
    settings = replace(task.settings, **given_settings(options))
    request = Request(options.data, options.output, settings, options.model, options.start_from, options.tokenizer, options.compile)
    with build_view(job.rank, job.world_size) as view:
        result = finetune(task, request, job, view)
    if job.rank == 0:
        _print_scores(task, result["metrics"])
        print(f"best epoch {result['best_epoch']} of {result['epochs']}; model and result.json in {options.output}")
    return 0


def sweep(options: argparse.Namespace, program: tuple[str, ...]) -> int:
    """Every setting with every seed; then the table."""
    _prepare_libraries()
    names = _tasks_of(options)
    for name in names:
        _check_data(build_task(name), options.data)
    model = chosen_model(options.output, options.model)
    if model is None and options.model:
        model = encoder_folder(options.model, None, options.output.absolute().parent / ".converted", options.tokenizer)
    if options.task != "glue":
        exit_code = _run_stage(options, program, options.output, names, model, options.start_from)
    else:
        exit_code = _sweep_glue(options, program, names, model)
    print(write_table(options.output, summarise(read_cells(options.output))))
    print(f"table.md and table.json in {options.output}")
    return exit_code


def ensemble(options: argparse.Namespace, job: Job) -> int:
    """Score an ensemble on the development sets, write its predictions for these and the test sets."""
    _prepare_libraries()
    output = options.output
    if output.exists() and any(output.iterdir()):
        raise FinetuneError(f"{output} exists; nothing is overwritten, choose another --output")
    with open_ensembles(options.data, job) as build_ensemble:
        task = build_task(options.task)
        members = build_ensemble(task, options.ensemble)
        metrics, files = {}, {}
        for split in (*task.dev_splits, *task.test_splits):
            answers = members.answers(split)
            if answers is not None:
                files |= task.prediction_files(split, answers.examples, answers.predictions)
                if split in task.dev_splits:
                    metrics[split] = task.metrics(answers.examples, answers.predictions)
    if job.rank == 0:
        output.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (output / name).write_text(text, encoding="utf-8")
        singles = [{"path": str(path), "metrics": OutputFolder(path).result()["metrics"]} for path in options.ensemble]
        write_json(output / "result.json", {"task": task.name, "metrics": metrics, "members": singles})
        _print_scores(task, metrics)
        print(f"{len(singles)} models; result.json{''.join(f', {name}' for name in files)} in {output}")
    return 0


def submit(options: argparse.Namespace, job: Job, test_rows: dict[str, int] = TEST_ROWS) -> int:
    """GLUE's zip: an ensemble of each task's best models answers its test sets."""
    _prepare_libraries()
    if options.output.exists():
        raise FinetuneError(f"{options.output} exists; nothing is overwritten, choose another --output")
    cells = list(read_cells(options.submit))
    names = _tasks_of(options) if options.tasks else list(dict.fromkeys(cell.task for cell, _ in cells))
    files: dict[str, str] = {}
    with open_ensembles(options.data, job) as build_ensemble:
        for name in names:
            task = build_task(name)
            members = build_ensemble(task, best_members(cells, name, options.size))
            for split in task.test_splits:
                answers = members.answers(split)
                if answers is None:
                    raise FinetuneError(f"{options.data} has no {split} set of {name}; --data takes GLUE's folder")
                for file, text in task.prediction_files(split, answers.examples, answers.predictions).items():
                    if file in files:
                        raise FinetuneError(f"{name} and another task both give {file}; say with --tasks which ones count")
                    files[file] = text
    if job.rank == 0:
        missing = write_zip(options.output, files, test_rows)
        print(f"{options.output}: {', '.join(sorted(files))}, each by {options.size} models")
        if missing:
            print(f"the leaderboard wants {', '.join(missing)} as well")
    return 0


def _tasks_of(options: argparse.Namespace) -> list[str]:
    """The tasks that a command is about."""
    if options.task != "glue":
        return [options.task]
    names = options.tasks.split(",") if options.tasks else list(GLUE)
    for name in names:
        build_task(name)
    return names


def _check_data(task: Task, data: Path) -> None:
    """Read what a sweep will read, so that bad data is told before hours of work."""
    read_sets(task, task_folder(task, data))


def _sweep_glue(options: argparse.Namespace, program: tuple[str, ...], names: list[str], model: Path | None) -> int:
    """All of GLUE; RTE, STS-B and MRPC after the others, from the best model of MNLI (section 5.1)."""
    later = [name for name in names if name in FROM_MNLI] if "mnli" in names and not options.no_mnli_start else []
    first = [name for name in names if name not in later]
    exit_code = _run_stage(options, program, options.output / "first", first, model, options.start_from)
    if exit_code not in (0, SOME_FAILED) or not later:
        return exit_code
    cells = list(read_cells(options.output / "first"))
    if any(output.result() is None for cell, output in cells if cell.task == "mnli"):
        print(f"{', '.join(later)} start when all of mnli is finished: give the same command again", flush=True)
        return exit_code
    second = options.output / "from-mnli"
    mnli = chosen_start(second) or best_members(cells, "mnli", 1)[0]
    print(f"{', '.join(later)} start from {mnli}", flush=True)
    return _run_stage(options, program, second, later, None, mnli) or exit_code


def _run_stage(
    options: argparse.Namespace,
    program: tuple[str, ...],
    folder: Path,
    names: list[str],
    model: Path | None,
    start_from: Path | None,
) -> int:
    """One sweep of the launcher."""
    fixed = given_settings(options)
    seeds = _parse_seeds(options.seeds)
    cells: list[Cell] = []
    for name in names:
        task = build_task(name)
        grid = {key: values for key, values in task.grid.items() if key not in fixed}
        cells += grid_cells(name, parse_grid(options.grid, grid), seeds)
        replace(task.settings, **fixed)  # checked before anything is written
    shared = [word for name, value in fixed.items() for word in ([option_name(name)] + ([] if value is True else [str(value)]))]
    shared += ["--compile"] if options.compile else []
    launcher = [f"--scheduler={options.scheduler}"] if options.scheduler else []
    launcher += [f"--parallel={options.parallel}"] if options.parallel else []
    return run_sweep(
        SweepRequest(
            folder=folder,
            data=options.data,
            model=model,
            asked_model=options.model,
            start_from=start_from,
            options=tuple(shared),
            program=program,
            cells=tuple(cells),
            launcher_options=(*launcher, *options.cluster),
        )
    )


def _parse_seeds(text: str | None) -> tuple[int, ...]:
    if text is None:
        return DEFAULT_SEEDS
    words = text.split(",")
    if not all(word.isdigit() for word in words) or len(set(words)) < len(words):
        raise FinetuneError(f"--seeds {text}: different whole numbers belong there, for instance --seeds 1,2,3")
    return tuple(map(int, words))


def _prepare_libraries() -> None:
    """FinetuneError where the extra is not installed; keeps transformers from talking about what is meant to be so."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise FinetuneError(f"the metrics need {' and '.join(missing)}: pip install '.[finetune]'")
    from transformers.utils import logging

    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _print_scores(task: Task, metrics: dict[str, dict[str, float]]) -> None:
    for split, scores in metrics.items():
        print(f"{task.name} {split}: " + "  ".join(f"{name} {value:.4f}" for name, value in scores.items()))
