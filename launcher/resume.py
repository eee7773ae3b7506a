"""`launcher resume`: from a run that stopped to a supervised run. Everything is checked first, under the run's lock, and changed after."""

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from launcher.foreground import run_in_background, run_in_foreground
from launcher.parsers import NOT_USABLE
from launcher.processes_per_node import check_gpus, load_run_config
from launcher.programs import Programs
from launcher.queue import put_into_queue
from launcher.run_lookup import find_run, submit_folder
from launcher.run_status import RunStatus, read_status, run_argument
from launcher.schedulers import find_scheduler, has_queue
from launcher.submit import check_extras, check_needs, describe_layout, free_name
from launcher.supervisor_record import hold_lock
from robustbert.config import ConfigError, RunConfig, config_to_dict, dump_config, load_config
from robustbert.config.yaml_file import dump_value
from robustbert.resume.changes import Comparison, Refusal, Trained, compare, newest_step, newest_trained, own_refusals
from robustbert.resume.continuation import record_changes
from robustbert.resume.rules import Way
from robustbert.run_directory import RunDirectory
from robustbert.train.start_from import with_pinned_start


def resume(options: argparse.Namespace, programs: Programs) -> int:
    """Continue a run that is not running, from its newest checkpoint; overrides change its configuration.

    The lock is held from the first look at the run until its supervisor has it: a resume that is refused changes nothing.
    """
    run = find_run(options.run, Path(options.dir))
    _refuse_running(read_status(run))
    with hold_lock(run) as lock:
        status = read_status(run)
        _refuse_running(status)  # another command may have been faster
        former = load_config(run.config_file)
        config = load_run_config(run.config_file, options.overrides)
        with _in_submit_folder(run) as here:
            comparison = check_changes(here, former, config, options.overrides)
        if comparison.refusals:
            return _say_refusals(run, former, config, comparison.refusals, options.overrides)
        _refuse_finished(status, config)
        with _in_submit_folder(run) as here:
            config = _checked(here, config)
        step = newest_step(run.checkpoints)
        print(f"run {status.name} continues from step {step}: {describe_layout(config)}", flush=True)
        for line in [change.text for change in comparison.changes] + _notes(run, former, config, comparison, options.overrides):
            print(f"  {line}", flush=True)
        scheduler = find_scheduler(config.cluster.scheduler)
        with replaced_config(run, former, config):
            code = put_into_queue(run, config, scheduler, programs) if has_queue(scheduler) else None
        run.append_event("restarted", step=step, by="the user", overrides=options.overrides)
        record_changes(run, step, [change.text for change in comparison.changes])
        if code is not None:
            return code
        return run_in_background(run, programs, lock) if options.detach else run_in_foreground(run, config, programs, lock)


def check_changes(run: RunDirectory, former: RunConfig, config: RunConfig, overrides: list[str]) -> Comparison:
    """What `config` changes of what the run's newest checkpoint was trained with; a run without one may change all but its name.

    former: the configuration file, which counts where the checkpoints' manifests are damaged.
    """
    from robustbert.data.errors import DataError, OtherData
    from robustbert.data.prepare import changed_sources, contents_now, prepared_data  # not needed by the other commands

    own, trained, step = own_refusals(former, config), newest_trained(run.checkpoints), newest_step(run.checkpoints)
    if trained is None and step == 0:
        return Comparison(refusals=own)
    trained = trained or Trained(step, config_to_dict(former), {})
    sha256 = _tokenizer_sha256(config)
    comparison = compare(trained, config, contents_now(config.data, run.data), sha256)
    comparison.refusals[:0] = own
    if sha256 not in (None, trained.state.get("tokenizer_sha256", sha256)) and not comparison.refusals:
        own_copy = run.data / "tokenizer"
        comparison.hints.append(f"{config.data.tokenizer} holds another tokenizer than the run's; the run continues with its copy {own_copy}")
    if not comparison.refusals:
        try:
            prepared_data(config.data, run.data)
        except OtherData as error:
            comparison.refusals.append(Refusal("data.train", f"data.train: {error}", Way.NONE, None))
        except DataError:
            pass  # lost: it is prepared again, and compared when the checkpoint is taken up
    names_data = any(key in ("data", "data.train", "data.valid") for key in map(_key, overrides))
    for text, words in changed_sources(config.data, run.data).items():
        if names_data:
            line = f"data.train: {text} {words} since the data was prepared, and a run reads one text from its first step to its last"
            comparison.refusals.append(Refusal("data.train", line, Way.WEIGHTS, None))
        else:
            comparison.hints.append(f"{text} {words} since the data was prepared; the run continues on what it has prepared")
    return comparison


def refusal_line(run: RunDirectory, former: RunConfig, config: RunConfig, refusal: Refusal, overrides: list[str]) -> str:
    """The refusal and what to type instead: no such override (the checkpoint's value, where the file differs), or the new run that was meant."""
    line = refusal.text
    if any(f"{refusal.key}.".startswith(f"{key}.") or key.startswith(f"{refusal.key}.") for key in map(_key, overrides)):
        line += f"; leave {refusal.key} as it is"
    elif refusal.former is not None:
        override = f"{refusal.key}={dump_value(_without_none(refusal.former))}"
        line += f"; set it back: {shlex.join(['launcher', 'resume', *shlex.split(run_argument(run)), override])}"
    if refusal.way is not Way.NONE:
        with_weights = refusal.way is Way.WEIGHTS
        line += f", or begin a new run{' with its weights' * with_weights}: {new_run(run, former, config, overrides, with_weights)}"
    return line


def new_run(run: RunDirectory, former: RunConfig, config: RunConfig, overrides: list[str], with_weights: bool) -> str:
    """The command that begins a new run with this configuration, with or without this run's weights."""
    name = free_name(run) if config.run.name == former.run.name else config.run.name
    not_kept = {"run.name", *(("train.start_from",) if with_weights else ())}
    words = [override for override in overrides if _key(override) not in not_kept] + [f"run.name={name}"]
    if with_weights:
        words.append(f"train.start_from={run.path}")
        if not isinstance(config.data.tokenizer, str):
            words.append(f"data.tokenizer={run.data / 'tokenizer'}")
    return shlex.join(["launcher", "submit", str(run.config_file), *words])


@contextlib.contextmanager
def replaced_config(run: RunDirectory, former: RunConfig, config: RunConfig) -> Iterator[None]:
    """The new configuration in place; the former stays as config.before-resume-N.yaml, and comes back where what follows fails."""
    if config == former:
        yield
        return
    number = 1
    while (kept := run.path / f"config.before-resume-{number}.yaml").exists():
        number += 1
    kept.write_bytes(run.config_file.read_bytes())
    draft = run.path / ".config.yaml.new"
    draft.write_text(dump_config(config), encoding="utf-8")
    draft.replace(run.config_file)
    try:
        yield
    except (ValueError, OSError):
        kept.replace(run.config_file)
        raise


@contextlib.contextmanager
def _in_submit_folder(run: RunDirectory) -> Iterator[RunDirectory]:
    """Be where relative paths of the run's configuration begin; yields the run by its absolute path."""
    absolute = RunDirectory(run.path.absolute())
    with contextlib.chdir(submit_folder(run) or Path.cwd()):
        yield absolute


def _say_refusals(run: RunDirectory, former: RunConfig, config: RunConfig, refusals: list[Refusal], overrides: list[str]) -> int:
    for refusal in refusals:
        print(f"launcher: error: {refusal_line(run, former, config, refusal, overrides)}", file=sys.stderr)
    return NOT_USABLE


def _checked(run: RunDirectory, config: RunConfig) -> RunConfig:
    """The configuration as it will be run; ConfigError where this machine, its cluster or the data are not ready for it."""
    scheduler = find_scheduler(config.cluster.scheduler)
    scheduler.check(config.cluster)
    check_gpus(config.cluster)
    scheduler.find_starter()
    if newest_step(run.checkpoints):
        check_extras(config)
        return config
    check_needs(config)
    return with_pinned_start(config)


def _refuse_running(status: RunStatus) -> None:
    name = run_argument(status.run)
    if status.is_alive and status.state == "finished":
        done = f"run {status.name!r} has finished at step {status.step} and its summary is being written"
        raise ConfigError(f"{done}; wait for it: launcher status {name}")
    if status.is_alive or status.state == "queued":
        raise ConfigError(f"run {status.name!r} is {status.in_words()}; watch it: launcher logs {name} --follow")


def _refuse_finished(status: RunStatus, config: RunConfig) -> None:
    if status.state == "finished" and config.train.steps <= status.step:
        raise ConfigError(
            f"run {status.name!r} is finished at step {status.step}; to train on, give more steps: "
            f"launcher resume {run_argument(status.run)} train.steps={2 * status.step or 1}"
        )


def _notes(run: RunDirectory, former: RunConfig, config: RunConfig, comparison: Comparison, overrides: list[str]) -> list[str]:
    notes = [f"note: {hint}" for hint in comparison.hints]
    if any("optim.lr=" in note for note in notes):
        command = new_run(run, former, config, overrides, with_weights=True)
        notes.append(f"note: for a schedule of its own, warm-up included, begin a new run with these weights: {command}")
    return notes


def _key(override: str) -> str:
    return override.partition("=")[0]


def _without_none(value: object) -> object:
    """Entries of data.train and data.valid as a user writes them."""
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _tokenizer_sha256(config: RunConfig) -> str | None:
    from robustbert.data.tokenizer import load_tokenizer

    try:
        return load_tokenizer(config.data.tokenizer).sha256 if isinstance(config.data.tokenizer, str) else None
    except ValueError:  # gone: the run has its own copy
        return None
