"""`launcher doctor`: asks every node of a run, measures the job's all-reduce, names what is slow or unfit."""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from launcher.doctor.job import measure_all_reduce
from launcher.doctor.judgement import Answer, Verdict, judge
from launcher.doctor.remote import ask_node
from launcher.processes_per_node import load_run_config
from launcher.programs import python_path
from launcher.schedulers import find_scheduler, has_queue
from robustbert.config import ConfigError, RunConfig, dump_config, dump_names, load_names

NODE_TIMEOUT_S = 180
_AT_ONCE = 32


def doctor(options: argparse.Namespace) -> int:
    """Check the nodes of a configuration; 0 where all are fit, 1 where not. ConfigError where they cannot be asked."""
    overrides = [f"cluster.scheduler={options.scheduler}"] if options.scheduler else []
    config = load_run_config(options.config, [*options.overrides, *overrides])
    scheduler = find_scheduler(config.cluster.scheduler)
    scheduler.check(config.cluster)
    starter = scheduler.find_starter()
    if has_queue(scheduler) and not scheduler.is_inside_allocation():
        again = ["launcher", *sys.argv[1:]]
        raise ConfigError(
            "the nodes are not known before there is an allocation; run this in one: "
            f"{scheduler.allocation_command(config, again)}"
        )
    known = load_names(options.exclude_file) if options.exclude_file else []
    nodes = scheduler.node_names(config.cluster)
    with _shared_folder(config) as folder:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            answers = list(threads.map(lambda node: _ask(config, scheduler, node, folder, options.megabytes), nodes))
        verdicts = judge(answers, options.slow_below)
        fit = [verdict.node for verdict in verdicts if verdict.is_fit][: config.cluster.nodes]
        reduction: dict | str = f"not measured: {len(fit)} of the {config.cluster.nodes} nodes needed are fit"
        if len(fit) == config.cluster.nodes:
            reduction = measure_all_reduce(config, scheduler, starter, fit, folder)
    unfit = [verdict.node for verdict in verdicts if not verdict.is_fit]
    # What is excluded already stays so: an override replaces the configuration's list. This machine cannot be left out.
    excluded = list(dict.fromkeys([*config.cluster.exclude, *unfit])) if unfit and hasattr(scheduler, "remote_command") else []
    if options.json:
        rows = [asdict(answer) | {"reasons": verdict.reasons} for answer, verdict in zip(answers, verdicts)]
        print(json.dumps({"nodes": rows, "all_reduce": reduction, "exclude": excluded}, indent=1))
    else:
        print(describe(answers, verdicts, reduction, excluded))
    if options.exclude_file and excluded:
        Path(options.exclude_file).write_text(dump_names([*known, *excluded]), encoding="utf-8")
    return 0 if not unfit and isinstance(reduction, dict) else 1


def describe(answers: list[Answer], verdicts: list[Verdict], reduction: dict | str, excluded: list[str]) -> str:
    """A table of the nodes, what is alike on them, the all-reduce, and how to leave out what is not fit."""
    names = ("products", "memory", "disk", "free memory", "free disk", "clock")
    widths = (14, 11, 11, 12, 12, 15)
    lines = [f"{'node':<20} " + " ".join(f"{name:>{width}}" for name, width in zip(names, widths)) + "  verdict"]
    for answer, verdict in zip(answers, verdicts):
        if answer.report is None:
            lines.append(f"{answer.node:<20} {'; '.join(verdict.reasons)}")
            continue
        rates, free = answer.report["rates"], answer.report["free_bytes"]
        cells = (
            _cell(rates.get("matmul_flops_per_s"), 1e12, "TFLOP/s", 3),
            *(_cell(rates.get(name), 1e9, "GB/s", 2) for name in ("memory_bytes_per_s", "disk_bytes_per_s")),
            *(_cell(free.get(name), 2**30, "GiB", 1) for name in ("host_memory", "disk")),
            f"{answer.clock_difference_s:+.2f}+-{answer.clock_uncertainty_s:.2f} s",
        )
        shown = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths))
        lines.append(f"{answer.node:<20} {shown}  " + ("fit" if verdict.is_fit else "; ".join(verdict.reasons)))
    first = next((answer.report for answer in answers if answer.report), None)
    if first:
        lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in first["versions"].items()))
        lines.append(f"optimizer: {first['optimizer'] or 'not compared'}")
    if isinstance(reduction, dict) and reduction["processes"] == 1:
        lines.append("all-reduce: one process has nothing to reduce")
    elif isinstance(reduction, dict):
        rates = ", ".join(f"{size} MiB {rate / 1e9:.2f} GB/s" for size, rate in reduction["bytes_per_s_of_mib"].items())
        lines.append(f"all-reduce of {reduction['processes']} processes ({reduction['backend']}, bus bandwidth): {rates}")
        if "first_failure" in reduction:
            lines.append(f"all-reduce: only the second start succeeded, the first {reduction['first_failure']}")
    else:
        lines.append(f"all-reduce {reduction}")
    if excluded:
        lines.append(f"to leave them out: 'cluster.exclude=[{', '.join(excluded)}]'")
    return "\n".join(lines)


def _cell(value: float | None, unit: float, name: str, digits: int) -> str:
    return "-" if value is None else f"{value / unit:,.{digits}f} {name}"


def _ask(config: RunConfig, scheduler: ModuleType, node: str, folder: Path, megabytes: int) -> Answer:
    arguments = (str(folder / "config.yaml"), str(folder), os.getcwd(), str(megabytes), str(NODE_TIMEOUT_S))
    threads = [f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"] if "OMP_NUM_THREADS" in os.environ else []
    python = [sys.executable, "-m", "launcher.doctor.node_check", *arguments]
    words = ["env", f"PYTHONPATH={python_path()}", *threads, *python]
    if hasattr(scheduler, "remote_command"):
        words = scheduler.remote_command(config.cluster, node, [shlex.quote(word) for word in words])
    return ask_node(node, words, NODE_TIMEOUT_S)


@contextmanager
def _shared_folder(config: RunConfig) -> Iterator[Path]:
    """A folder beside the runs, which all nodes see, with the configuration; removed afterwards."""
    runs = Path(config.run.dir).expanduser().absolute()
    is_new = not runs.exists()
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".doctor-", dir=runs))
    try:
        (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new and not any(runs.iterdir()):
            runs.rmdir()
