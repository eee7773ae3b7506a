"""`launcher doctor`: asks every node of a run, measures the job's all-reduce, names what is slow or unfit."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from launcher.doctor.judgement import Answer, Verdict, judge
from launcher.job_env import rank_environment
from launcher.programs import python_path
from launcher.schedulers import find_scheduler, has_queue
from robustbert.config import ConfigError, RunConfig, dump_config, load_config

NODE_TIMEOUT_S = 180
ALL_REDUCE_TIMEOUT_S = 300
_AT_ONCE = 32


def doctor(options: argparse.Namespace) -> int:
    """Check the nodes of a configuration; 0 where all are fit, 1 where not. ConfigError where they cannot be asked."""
    overrides = [f"cluster.scheduler={options.scheduler}"] if options.scheduler else []
    config = load_config(options.config, [*options.overrides, *overrides])
    scheduler = find_scheduler(config.cluster.scheduler)
    scheduler.check(config)
    starter = scheduler.find_starter()
    if has_queue(scheduler) and "SLURM_JOB_ID" not in os.environ:
        raise ConfigError(
            f"the nodes are not known before there is an allocation; ask for one and run this in it: salloc "
            f"--nodes={config.cluster.nodes + config.cluster.spare_nodes} launcher doctor {shlex.quote(options.config)}"
        )
    nodes = scheduler.node_names(config)
    with _shared_folder(config) as folder:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            answers = list(threads.map(lambda node: _ask(config, scheduler, node, folder, options.megabytes), nodes))
        verdicts = judge(answers, options.slow_below)
        fit = [verdict.node for verdict in verdicts if verdict.is_fit][: config.cluster.nodes]
        reduction: dict | str = f"not measured: {len(fit)} of the {config.cluster.nodes} nodes needed are fit"
        if len(fit) == config.cluster.nodes:
            reduction = _measure_all_reduce(config, scheduler, starter, fit, folder)
    excluded = [verdict.node for verdict in verdicts if not verdict.is_fit]
    if options.json:
        rows = [asdict(answer) | {"reasons": verdict.reasons} for answer, verdict in zip(answers, verdicts)]
        print(json.dumps({"nodes": rows, "all_reduce": reduction, "exclude": excluded}, indent=1))
    else:
        print(describe(answers, verdicts, reduction))
    if options.exclude_file and excluded:
        merge_exclusions(Path(options.exclude_file), excluded)
    return 0 if not excluded and isinstance(reduction, dict) else 1


def describe(answers: list[Answer], verdicts: list[Verdict], reduction: dict | str) -> str:
    """A table of the nodes, the all-reduce, and how to leave out what is not fit."""
    lines = [f"{'node':<20} {'products':>14} {'memory':>11} {'disk':>11} {'free memory':>12} {'free disk':>11}  verdict"]
    for answer, verdict in zip(answers, verdicts):
        rates = (answer.report or {}).get("rates", {})
        free = (answer.report or {}).get("free_bytes", {})
        cells = (
            f"{answer.node:<20}",
            f"{rates.get('matmul_flops_per_s', 0) / 1e12:>7.3f} TFLOP/s"[-14:].rjust(14),
            *(f"{rates.get(name, 0) / 1e9:>6.2f} GB/s" for name in ("memory_bytes_per_s", "disk_bytes_per_s")),
            *(f"{free.get(name, 0) / 2**30:>7.1f} GiB" for name in ("host_memory", "disk")),
        )
        lines.append(" ".join(cells) + "  " + ("fit" if verdict.is_fit else "; ".join(verdict.reasons)))
    first = next((answer.report for answer in answers if answer.report), None)
    if first:
        lines.append("versions: " + ", ".join(f"{name} {version}" for name, version in first["versions"].items()))
    if isinstance(reduction, dict):
        rates = ", ".join(f"{size} MiB {rate / 1e9:.2f} GB/s" for size, rate in reduction["bytes_per_s_of_mib"].items())
        lines.append(f"all-reduce of {reduction['processes']} processes ({reduction['backend']}, bus bandwidth): {rates}")
    else:
        lines.append(f"all-reduce {reduction}")
    excluded = [verdict.node for verdict in verdicts if not verdict.is_fit]
    if excluded:
        lines.append(f"to leave them out: 'cluster.exclude=[{', '.join(excluded)}]'")
    return "\n".join(lines)


def merge_exclusions(path: Path, nodes: list[str]) -> None:
    """Add the nodes to a file with one name a line; what stands there stays."""
    known = path.read_text(encoding="utf-8").split() if path.exists() else []
    path.write_text("".join(f"{node}\n" for node in dict.fromkeys([*known, *nodes])), encoding="utf-8")


def _ask(config: RunConfig, scheduler: ModuleType, node: str, folder: Path, megabytes: int) -> Answer:
    command = [sys.executable, "-m", "launcher.doctor.node_check", str(folder / "config.yaml"), str(folder), str(megabytes)]
    words = ["env", f"PYTHONPATH={python_path()}", *command]
    if hasattr(scheduler, "remote_command"):
        words = scheduler.remote_command(config, node, [shlex.quote(word) for word in words])
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=NODE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return Answer(node, None, f"no answer within {NODE_TIMEOUT_S} s")
    except OSError as error:
        return Answer(node, None, f"not reached: {error}")
    answered_at = time.time()
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Answer(node, None, f"not reached, or its check failed: {last}")
    report = json.loads(lines[-1])
    return Answer(node, report, clock_difference_s=report["clock"] - answered_at)


def _measure_all_reduce(config: RunConfig, scheduler: ModuleType, starter: str, nodes: list[str], folder: Path) -> dict | str:
    command = scheduler.build_command(config, folder, sys.executable, starter, "launcher.doctor.all_reduce", nodes)
    environment = rank_environment(
        os.environ, config.cluster.processes_per_node, os.cpu_count() or 1, python_path(), in_allocation=has_queue(scheduler)
    )
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ALL_REDUCE_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {ALL_REDUCE_TIMEOUT_S} s"
    record = folder / "all_reduce.json"
    if not record.exists():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return f"failed: {last}"
    return json.loads(record.read_text())


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
