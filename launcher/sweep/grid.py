"""A sweep of pretraining runs: one run for each combination of the values that `--over` names."""

import itertools
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.processes_per_node import load_run_config
from launcher.programs import Programs
from launcher.submit import check_needs, create_run
from launcher.sweep.folder import Sweep, make_sweep, write_sweep
from robustbert.config import ConfigError, RunConfig, config_to_dict, parse_override
from robustbert.run_directory import RunDirectory

_OF_THE_SWEEP = ("run.name", "run.dir", "cluster.scheduler")


@dataclass(frozen=True)
class Grid:
    """A sweep that is not written yet, and the configurations of its members."""

    sweep: Sweep
    configs: tuple[RunConfig, ...]


def build_grid(config_path: str, overrides: list[str], over: list[str], folder: str | None, programs: Programs, at_once: int = 1) -> Grid:
    """Every combination's configuration, checked, and the sweep of them; writes nothing.

    over: `section.key=[value, ...]`. A run is called by the configuration's name and its values; it gets what it would get from
    `launcher submit`, below run.dir, beside `at_once - 1` others. ConfigError where a value is wrong, two names are equal, or the runs' clusters differ.
    """
    base = load_run_config(config_path, overrides, at_once)
    axes = [_axis(text) for text in over]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise ConfigError(f"--over names a key twice: {', '.join(keys)}; put all its values into one list")
    combinations = [dict(zip(keys, values)) for values in itertools.product(*(v for _, v in axes))]
    configs = tuple(_config(config_path, overrides, values, base, at_once) for values in combinations)
    names = [config.run.name for config in configs]
    if len(set(names)) < len(names):
        raise ConfigError(f"two runs would be called {next(name for name in names if names.count(name) > 1)}; give different values")
    cluster = configs[0].cluster
    if different := next((config for config in configs if config.cluster != cluster), None):
        raise ConfigError(f"the members of a sweep run on equal nodes, {different.run.name} has another section cluster")
    path = Path(folder) if folder else Path(base.run.dir).expanduser() / f"sweep-{base.run.name}"
    runs = [Path(config.run.dir).expanduser().absolute() / config.run.name for config in configs]
    members = [
        {"name": run.name, "run": str(run), "command": [sys.executable, "-m", "launcher", "supervise", str(run), *programs.as_options()]}
        for run in runs
    ]
    sweep = make_sweep(path, f"{base.run.name} over {' '.join(over)}", Path.cwd(), members, config_to_dict(cluster))
    if cluster.scheduler == "mpi" and cluster.nodes == 1:  # a host gets whole runs
        configs = tuple(replace(config, cluster=replace(cluster, scheduler="local")) for config in configs)
    return Grid(sweep, configs)


@contextmanager
def created(grid: Grid) -> Iterator[Sweep]:
    """Make the runs' directories and the sweep's folder. All of it goes again where the body fails before anything has run."""
    for config in grid.configs:
        check_needs(config)
    existing = next((member.run for member in grid.sweep.members if member.run.path.exists()), None)
    if existing is not None and not (grid.sweep.path / "sweep.json").exists():
        raise ConfigError(f"run {existing.path.name!r} exists in {existing.path.parent}; take another run.name, or run.dir")
    was_there = grid.sweep.path.exists()
    write_sweep(grid.sweep)
    made: list[RunDirectory] = []
    try:
        for member, config in zip(grid.sweep.members, grid.configs):
            create_run(member.run, config)
            made.append(member.run)
        yield grid.sweep
    except ValueError:
        for run in made:
            shutil.rmtree(run.path)
        (grid.sweep.path / "sweep.json").unlink() if was_there else shutil.rmtree(grid.sweep.path)
        raise


def _axis(text: str) -> tuple[str, list]:
    key, values = parse_override(text)
    if not isinstance(values, list) or not values:
        raise ConfigError(f"--over {text}: give the values as a list, for instance --over {key}=[1,2]")
    if key in _OF_THE_SWEEP:
        raise ConfigError(f"--over {text}: {key} is the same for all members of a sweep")
    return key, values


def _config(path: str, overrides: list[str], values: dict, base: RunConfig, at_once: int) -> RunConfig:
    name = "-".join([base.run.name, *(f"{_short(key, list(values))}{_text(value)}" for key, value in values.items())])
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]  # JSON is YAML
    return load_run_config(path, [*overrides, *given, f"run.name={json.dumps(name)}"], at_once)


def _short(key: str, keys: list[str]) -> str:
    """The key's last part, unless another key ends like it."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _text(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("_")
