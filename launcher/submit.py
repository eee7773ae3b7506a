"""`launcher submit`: from a configuration to a supervised run."""

import argparse
import importlib.util
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from launcher.foreground import run_in_background, run_in_foreground
from launcher.processes_per_node import check_gpus, load_run_config
from launcher.programs import Programs, module_command
from launcher.queue import describe_submission, put_into_queue
from launcher.run_status import read_status, run_argument
from launcher.schedulers import find_scheduler, has_queue
from launcher.supervisor_record import hold_lock, is_supervised
from robustbert.config import ConfigError, RunConfig, dump_config
from robustbert.run_directory import RunDirectory
from robustbert.train.start_from import check_start, find_start, with_pinned_start


def submit(options: argparse.Namespace, programs: Programs) -> int:
    """Check everything, make the run's directory, start the run. Errors leave nothing behind.

    A dry run prints everything even where this machine or its data is not ready, and then says what submit would refuse.
    """
    scheduler_override = [f"cluster.scheduler={options.scheduler}"] if options.scheduler else []
    config = load_run_config(options.config, [*options.overrides, *scheduler_override])
    scheduler = find_scheduler(config.cluster.scheduler)
    run = RunDirectory(Path(config.run.dir).expanduser() / config.run.name)
    if options.dry_run:
        return _dry_run(run, config, scheduler, options, programs)
    scheduler.check(config.cluster)
    check_gpus(config.cluster)
    scheduler.find_starter()
    if run.path.exists():
        raise ConfigError(_run_exists(run, options))
    check_needs(config)
    create_run(run, config)
    print(f"run {config.run.name} in {run.path}: {describe_layout(config)}", flush=True)
    with hold_lock(run) as lock:
        if has_queue(scheduler):
            try:
                return put_into_queue(run, config, scheduler, programs)
            except ConfigError:
                shutil.rmtree(run.path)  # made a moment ago, and nothing has run
                raise
        return run_in_background(run, programs, lock) if options.detach else run_in_foreground(run, config, programs, lock)


def describe_layout(config: RunConfig) -> str:
    """For instance `2 processes = tensor 1 x pipeline 1 x data 2, 1 micro-batch of 16 a step`.

    With shorter samples than sequence_length their number follows from the prepared data, which may not be there yet.
    """
    processes, parallel = config.cluster.num_processes, config.parallel
    per_step = f"{_count(config.num_micro_batches(processes), 'micro-batch')} of {config.train.micro_batch_size} a step"
    if config.data.has_variable_lengths:
        full = f"{config.train.global_batch_size} x {config.data.sequence_length}"
        per_step = f"micro-batches of at most {config.train.micro_batch_size}, as many a step as hold about the tokens of {full}"
    return (
        f"{_count(processes, 'process')} = tensor {parallel.tensor} x pipeline {parallel.pipeline} x data "
        f"{config.data_parallel_size(processes)}, {per_step}"
    )


def describe_plan(run: RunDirectory, config: RunConfig, command: list[str], programs: Programs) -> str:
    """What a dry run prints: where, the layout, every command that would run, the resolved configuration."""
    path = run.path.absolute()
    commands = [module_command(programs.prepare, path), command, module_command(programs.summary, path)]
    return "\n".join(
        [
            f"run directory:  {run.path}",
            f"layout:         {describe_layout(config)}",
            f"a step:         {config.train.global_batch_size} sequences x {config.data.sequence_length} tokens",
            "commands, one after the other:",
            *(f"  {shlex.join(command)}" for command in commands),
            "configuration:",
            dump_config(config).rstrip(),
        ]
    )


def _dry_run(
    run: RunDirectory, config: RunConfig, scheduler: ModuleType, options: argparse.Namespace, programs: Programs
) -> int:
    """Print what submit would do; 2 where it would refuse, with each reason on standard error."""
    path = run.path.absolute()
    if has_queue(scheduler):
        print(describe_submission(config, path, scheduler, programs))
    checks = (lambda: scheduler.check(config.cluster), lambda: check_gpus(config.cluster), lambda: check_needs(config))
    refusals = [words for check in checks if (words := _refusal(check))]
    try:
        starter = scheduler.find_starter()
    except ConfigError as error:
        refusals.append(str(error))
        starter = "mpirun"
    nodes = scheduler.node_names(config.cluster)[: config.cluster.nodes]
    command = scheduler.build_command(config.cluster, path, sys.executable, starter, programs.worker, nodes)
    print(describe_plan(run, config, command, programs), flush=True)
    if run.path.exists():
        print(f"launcher: note: {_run_exists(run, options)}", file=sys.stderr)
    for words in refusals:
        print(f"launcher: error: submit would refuse this: {' '.join(words.split())}", file=sys.stderr)
    return 2 if refusals else 0


def _refusal(check: Callable[[], None]) -> str | None:
    try:
        check()
    except ValueError as error:  # ConfigError, and what the data's files are refused with
        return str(error)
    return None


def check_extras(config: RunConfig) -> None:
    """ConfigError where a package is missing that the configuration asks for beyond install_requires."""
    if config.monitoring.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ConfigError(
            "monitoring.tensorboard: true needs the package tensorboard; pip install 'robustbert[tensorboard]', or leave it false"
        )


def check_needs(config: RunConfig) -> None:
    """ConfigError where the tokenizer, a corpus or a package that the configuration asks for is not there, or sizes do not fit."""
    check_extras(config)
    from robustbert.data.prepare import check_sources  # reads files; not needed by the other commands

    check_sources(config.data)
    if config.train.start_from is not None:
        _check_start_from(config)
    if config.model.vocab_size is not None and isinstance(config.data.tokenizer, str):
        from robustbert.data.tokenizer import load_tokenizer

        num_ids = load_tokenizer(config.data.tokenizer).vocab_size
        if config.model.vocab_size < num_ids:
            raise ConfigError(
                f"model.vocab_size ({config.model.vocab_size}) is below the {num_ids} ids of {config.data.tokenizer}; "
                "leave it out, or take the tokenizer that the model was made for"
            )


def _check_start_from(config: RunConfig) -> None:
    from robustbert.data.tokenizer import load_tokenizer

    if not isinstance(config.data.tokenizer, str):
        raise ConfigError(
            "train.start_from: its weights know another tokenizer's ids than data.tokenizer.train would make; name the folder of the "
            "tokenizer they were trained with: data.tokenizer=DIR"
        )
    folder = find_start(config.train.start_from)
    check_start(folder, config.model, load_tokenizer(config.data.tokenizer).sha256)


def create_run(run: RunDirectory, config: RunConfig) -> None:
    """Make a run's directory with its configuration; ConfigError where it is there already."""
    config = with_pinned_start(config)
    run.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        run.path.mkdir()
    except FileExistsError:  # another submit was faster
        raise ConfigError(f"run {run.path.name!r} has just been created by another submit") from None
    run.config_file.write_text(dump_config(config), encoding="utf-8")
    run.append_event("submitted", folder=str(Path.cwd()), command=["launcher", *sys.argv[1:]])


def free_name(run: RunDirectory) -> str:
    """A name beside the run's that no run has yet: NAME-2, NAME-3, ..."""
    number = 2
    while run.path.with_name(f"{run.path.name}-{number}").exists():
        number += 1
    return f"{run.path.name}-{number}"


def _run_exists(run: RunDirectory, options: argparse.Namespace) -> str:
    name = run.path.name
    overrides = [override for override in options.overrides if not override.startswith("run.name=")]
    other = shlex.join(["launcher", "submit", options.config, *overrides, f"run.name={free_name(run)}"])
    if not run.config_file.exists():
        return f"{run.path} exists and is not a run; another name: {other}"
    status = read_status(run)
    ways = f"Resume it: launcher resume {run_argument(run)}"
    if is_supervised(run) or status.state == "queued":
        ways = f"Watch it: launcher logs {run_argument(run)} --follow"
    elif status.state == "finished":
        ways = f"Train on: launcher resume {run_argument(run)} train.steps={2 * status.step or 1}"
    return f"run {name!r} exists ({status.in_words()}). {ways}; another name: {other}"


def _count(number: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
