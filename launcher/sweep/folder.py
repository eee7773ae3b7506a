"""A sweep: a folder with sweep.json, and below members/NAME what each of its members left.

sweep.json: {"title", "folder" (where relative paths start), "members": [{"name", "command": [argv, ...], "run": optional run
directory}, ...], "cluster": optional keys of the section `cluster`}. members/NAME: log.txt, done.json, supervisor.json and its lock.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from robustbert.config import ConfigError
from robustbert.run_directory import RunDirectory

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,@-]*")  # of a name, between two slashes
_KEYS = {"title": str, "folder": str, "members": list}
_OPTIONAL = {"cluster": dict}


@dataclass(frozen=True)
class Done:
    """How a member's last attempt ended, as done.json has it. `stopped`: why it was told to stop, None where it was not."""

    exit_code: int
    seconds: float
    started: float  # seconds since 1970
    host: str
    stopped: str | None
    command: list[str]

    @property
    def is_success(self) -> bool:
        return self.exit_code == 0

    def in_words(self) -> str:
        """`done`, `stopped (...)`, `failed, exit code 1`."""
        if self.is_success:
            return "done"
        return f"stopped ({self.stopped})" if self.stopped else f"failed, exit code {self.exit_code}"


@dataclass(frozen=True)
class Member:
    """One command of a sweep; `path` is its folder, `number` its place in sweep.json."""

    number: int
    name: str
    command: tuple[str, ...]
    path: Path
    run: RunDirectory | None = None  # of a member that is a pretraining run

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def done_file(self) -> Path:
        return self.path / "done.json"

    def read_done(self) -> Done | None:
        """The record of its last attempt; None before its end."""
        try:
            return Done(**json.loads(self.done_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write_done(self, done: Done) -> None:
        draft = self.done_file.with_name(f".done.json.{os.getpid()}")
        with open(draft, "w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.done_file)

    @property
    def is_success(self) -> bool:
        done = self.read_done()
        return done is not None and done.is_success


@dataclass(frozen=True)
class Sweep:
    """What sweep.json says; `path` is absolute, `cluster` are plain keys of that section."""

    path: Path
    title: str
    folder: Path
    members: tuple[Member, ...]
    cluster: dict = field(default_factory=dict)

    @property
    def of_runs(self) -> bool:
        """Whether every member is a pretraining run, which saves and stops at a notice."""
        return all(member.run is not None for member in self.members)

    def missing(self) -> list[Member]:
        """The members that have not succeeded yet. ConfigError where one has, by another command than sweep.json's."""
        missing = []
        for member in self.members:
            done = member.read_done()
            if done is None or not done.is_success:
                missing.append(member)
            elif tuple(done.command[1:]) != member.command[1:]:  # the interpreter's path may change
                raise ConfigError(
                    f"{member.path} was done with another command than sweep.json now has for it; make the sweep in another "
                    "folder, or remove that one to run the member again"
                )
        return missing


def make_sweep(path: Path, title: str, folder: Path, members: list[dict], cluster: dict | None = None) -> Sweep:
    """A Sweep of {"name", "command", "run"?} members, checked; writes nothing. ConfigError names the member that is wrong."""
    if not members:
        raise ConfigError(f"{path}: a sweep needs at least one member")
    path = path.absolute()
    built = tuple(_make_member(path, number, member) for number, member in enumerate(members))
    names = {member.name for member in built}
    if len(names) < len(built):
        twice = next(member.name for member in built if sum(other.name == member.name for other in built) > 1)
        raise ConfigError(f"{path}: two members are called {twice}")
    for name in names:
        if parent := next((str(above) for above in Path(name).parents if str(above) in names), None):
            raise ConfigError(f"{path}: the member {parent} would be the folder of the member {name}; give it another name")
    return Sweep(path, title, folder, built, dict(cluster or {}))


def read_sweep(path: Path) -> Sweep:
    """The sweep in a folder; ConfigError where sweep.json is missing, no JSON, or says something else than a sweep."""
    file = path / "sweep.json"
    try:
        tree = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} holds no sweep.json; make a sweep from a configuration: launcher sweep CONFIG --over optim.lr=[1e-4,4e-4]") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: an object with title, folder and members belongs here")
    for key, kind in (_KEYS | _OPTIONAL).items():
        if key not in tree and key in _OPTIONAL:
            continue
        if not isinstance(tree.get(key), kind):
            raise ConfigError(f"{file}: {key} must be a {_JSON_NAMES[kind]}")
    folder = Path(tree["folder"]).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"{file}: folder ({folder}), where relative paths start, is no folder")
    return make_sweep(path, tree["title"], folder.absolute(), tree["members"], tree.get("cluster"))


def write_sweep(sweep: Sweep) -> None:
    """Make the folder and its sweep.json; ConfigError where there is one already."""
    if (sweep.path / "sweep.json").exists():
        raise ConfigError(f"the sweep {sweep.path} exists; go on with it: launcher sweep {sweep.path}")
    sweep.path.mkdir(parents=True, exist_ok=True)
    members = [
        {"name": m.name, "command": list(m.command)} | ({"run": str(m.run.path)} if m.run else {}) for m in sweep.members
    ]
    tree = {"title": sweep.title, "folder": str(sweep.folder), "members": members, "cluster": sweep.cluster}
    draft = sweep.path / ".sweep.json.new"
    draft.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")
    draft.replace(sweep.path / "sweep.json")


_JSON_NAMES = {str: "text", list: "list", dict: "object"}


def _make_member(sweep_path: Path, number: int, member: dict) -> Member:
    where = f"{sweep_path}: member {number}"
    if not isinstance(member, dict) or not set(member) <= {"name", "command", "run"}:
        raise ConfigError(f"{where} must be an object with name, command, and nothing else but run")
    name, command, run = member.get("name"), member.get("command"), member.get("run")
    if not isinstance(name, str) or not all(_PART.fullmatch(part) for part in name.split("/")):
        raise ConfigError(
            f"{where}: {name!r} becomes a folder: letters, digits and ._+=,@- in parts that begin with a letter or digit, "
            "parted by single slashes"
        )
    if not isinstance(command, (list, tuple)) or not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise ConfigError(f"{where} ({name}): command must be a list of words, the program first")
    if run is not None and not isinstance(run, str):
        raise ConfigError(f"{where} ({name}): run must be the path of a run's directory")
    return Member(number, name, tuple(command), sweep_path / "members" / name, RunDirectory(Path(run)) if run else None)
