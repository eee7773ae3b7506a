"""A sweep: every setting of a grid with every seed, one finetuning each, as one job of the launcher (section 5.1, Table 10).

FOLDER/sweep.json       the members, for `launcher sweep`; FOLDER/members/NAME is what it keeps of each
FOLDER/runs/NAME        their outputs
FOLDER/table.json, .md  the result
"""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import robustbert
from robustbert.finetune.output import OutputFolder, is_untouched, read_json, write_json
from robustbert.finetune.settings import FinetuneError, Settings, option_name, setting_types

DEFAULT_SEEDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Cell:
    """One finetuning of a sweep. values: its place in the grid, without the seed."""

    task: str
    values: dict
    seed: int

    @property
    def setting(self) -> str:
        """`lr=1e-05,batch_size=16`."""
        return ",".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def name(self) -> str:
        """`sst-2/lr=1e-05,batch_size=16/seed=1`."""
        return f"{self.task}/{self.setting or 'default'}/seed={self.seed}"

    @classmethod
    def of_name(cls, name: str) -> "Cell":
        """The cell that is called so."""
        task, setting, seed = name.split("/")
        pairs = [] if setting == "default" else [pair.split("=", 1) for pair in re.split(r",(?=[a-z_0-9]+=)", setting)]
        types = setting_types()
        return cls(task, {key: types[key](value) for key, value in pairs}, int(seed.removeprefix("seed=")))


@dataclass(frozen=True)
class SweepRequest:
    """What is swept. options: the command line's words that all members share, such as --precision bf16."""

    folder: Path
    data: Path
    model: Path | None
    asked_model: Path | None  # as the user named it, such as a run, whose newest checkpoint `model` is
    start_from: Path | None
    options: tuple[str, ...]
    program: tuple[str, ...]  # starts tools/finetune
    cells: tuple[Cell, ...]
    launcher_options: tuple[str, ...] = field(default=())

    def output(self, cell: Cell) -> OutputFolder:
        return OutputFolder(self.folder / "runs" / cell.name)


def grid_cells(task: str, grid: dict[str, tuple], seeds: tuple[int, ...]) -> list[Cell]:
    """Every combination of the grid with every seed."""
    return [
        Cell(task, dict(zip(grid, values)), seed) for values in itertools.product(*grid.values()) for seed in seeds
    ]


def parse_grid(words: list[str], default: dict[str, tuple]) -> dict[str, tuple]:
    """`lr=1e-5,2e-5` words over a default grid; `name=value` with one value fixes it. FinetuneError names what is wrong."""
    grid, types = dict(default), setting_types()
    for word in words:
        name, equals, values = word.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in types or name in ("seed", "untrained"):
            known = ", ".join(known for known in types if known not in ("seed", "untrained"))
            raise FinetuneError(f"--grid {word}: name=value,value,... belongs there; names are {known}")
        try:
            grid[name] = tuple(types[name](value) for value in values.split(","))
        except ValueError:
            raise FinetuneError(f"--grid {word}: {values!r} are no values of type {types[name].__name__}") from None
        if len(set(grid[name])) < len(grid[name]):
            raise FinetuneError(f"--grid {word}: a value stands there twice")
        for value in grid[name]:
            Settings(**{name: value})
    return grid


def run_sweep(request: SweepRequest) -> int:
    """Have the launcher run what is missing of the sweep; its exit code. FinetuneError for another sweep's folder.

    A sweep grows: cells that its folder does not know yet join those that it has, if only seed and grid tell them apart.
    """
    file = request.folder / "sweep.json"
    members = {cell.name: {"name": cell.name, "command": _command(request, cell)} for cell in request.cells}
    if file.exists():
        members = _joined(file, members)
    elif not is_untouched(request.folder):
        raise FinetuneError(f"{request.folder} exists and is no sweep's folder; nothing is overwritten, choose another --output")
    request.folder.mkdir(parents=True, exist_ok=True)
    content = {
        "title": f"{' '.join(sorted({cell.task for cell in request.cells}))}: {len(members)} finetunings",
        "folder": str(Path.cwd()),
        "model": {"asked": _absolute(request.asked_model), "folder": _absolute(request.model)},
        "members": list(members.values()),
    }
    write_json(file, content)
    words = [sys.executable, "-m", "launcher", "sweep", str(request.folder), *request.launcher_options]
    here = str(Path(robustbert.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    sys.stdout.flush()
    return _run(words, os.environ | {"PYTHONPATH": path})


def read_cells(folder: Path) -> Iterator[tuple[Cell, OutputFolder]]:
    """The cells of the sweep (or sweeps) in a folder with their outputs, finished or not."""
    files = sorted(folder.rglob("sweep.json"))
    if not files:
        raise FinetuneError(f"{folder} holds no sweep (no sweep.json); make one with tools/finetune TASK --sweep")
    for file in files:
        for member in read_json(file)["members"]:
            yield Cell.of_name(member["name"]), OutputFolder(file.parent / "runs" / member["name"])


def chosen_model(folder: Path, asked: Path | None) -> Path | None:
    """The model that the sweep in `folder` began with, if it was asked for by the same name; None without such a sweep.

    A run has other checkpoints by the time that a sweep goes on.
    """
    for file in sorted(folder.rglob("sweep.json")):
        model = read_json(file).get("model") or {}
        if asked is not None and model.get("asked") == _absolute(asked) and Path(model["folder"]).exists():
            return Path(model["folder"])
    return None


def chosen_start(folder: Path) -> Path | None:
    """The former finetuning that the sweep in `folder` itself starts from; None without such a sweep.

    A sweep that has grown may have another best model of MNLI; what starts from it keeps the first one.
    """
    file = folder / "sweep.json"
    words = read_json(file)["members"][0]["command"] if file.exists() else []
    return Path(words[words.index("--start-from") + 1]) if "--start-from" in words else None


def _command(request: SweepRequest, cell: Cell) -> list[str]:
    words = [*request.program, cell.task, "--data", str(request.data.absolute())]
    words += ["--output", str(request.output(cell).path.absolute())]
    words += ["--model", str(request.model.absolute())] if request.model else []
    words += ["--start-from", str(request.start_from.absolute())] if request.start_from else []
    words += request.options
    for name, value in (*cell.values.items(), ("seed", cell.seed)):
        words += [option_name(name), str(value)]
    return words


def _run(words: list[str], environment: dict[str, str]) -> int:
    """The launcher's exit code; 130 or 143 after Ctrl-C or SIGTERM, which it is told of: it stops its members before it ends."""
    received: list[int] = []
    process = subprocess.Popen(words, env=environment, process_group=0)

    def pass_on(number, frame) -> None:
        received.append(number)
        process.send_signal(signal.SIGINT)

    former = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        exit_code = process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else exit_code


def _joined(file: Path, asked: dict[str, dict]) -> dict[str, dict]:
    """A sweep's members by name, those that its file has first. FinetuneError where they do not belong together."""
    known = {member["name"]: member for member in read_json(file)["members"]}
    try:
        belong_together = _essence(file, known.values()) == _essence(file, asked.values())
    except (KeyError, ValueError):  # members that no finetuning is called
        belong_together = False
    if not belong_together:
        raise FinetuneError(
            f"{file.parent} belongs to a sweep of other commands; only --seeds and the values of --grid may differ: give its own "
            "command, or choose another --output"
        )
    return known | asked


def _essence(file: Path, members: Iterable[dict]) -> dict[str, set[tuple[str, ...]]]:
    """By task, the words that its members' commands share: without the interpreter's path, what follows from the name, and its values.

    In a sweep one tuple a task; KeyError or ValueError for members of something else.
    """
    shared = defaultdict(set)
    for member in members:
        words, cell = member["command"], Cell.of_name(member["name"])
        output, end = words.index("--output"), len(words) - 2 * (len(cell.values) + 1)
        place = Path(words[output + 1]).relative_to(file.parent.absolute() / "runs" / cell.name)
        shared[cell.task].add((*words[1:output], str(place), *words[output + 2 : end], *map(option_name, cell.values)))
    return shared


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None

