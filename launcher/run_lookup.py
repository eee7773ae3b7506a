"""Finds the run that a user means: by its name below the runs' folder, or by its directory."""

import difflib
from pathlib import Path

from launcher.run_status import all_runs, is_run
from robustbert.config import ConfigError
from robustbert.run_directory import RunDirectory


def find_run(name: str, folder: Path) -> RunDirectory:
    """The run called `name` below `folder`, or the run in the directory `name`; ConfigError names the nearest runs."""
    for path in (folder / name, Path(name)):
        if is_run(path):
            return RunDirectory(path)
    known = [run.path.name for run in all_runs(folder)]
    if not known:
        raise ConfigError(
            f"no run {name!r}: there are no runs in {folder}; name its directory, or its folder with --dir"
        )
    near = difflib.get_close_matches(Path(name).name, known, n=3, cutoff=0.4)
    if near:
        raise ConfigError(f"no run {name!r} in {folder}; did you mean {' or '.join(near)}?")
    raise ConfigError(
        f"no run {name!r} in {folder}; there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
    )


def submit_folder(run: RunDirectory) -> Path | None:
    """The folder that the run was submitted in; None where that is not known, or gone."""
    submitted = next((event for event in run.events() if event["event"] == "submitted"), {})
    folder = submitted.get("folder")
    return Path(folder) if folder and Path(folder).is_dir() else None
