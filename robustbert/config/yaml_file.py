"""Reads a run's YAML into RunConfig and writes it back: `base:` inheritance, overrides, unknown keys, types.

The only module of the project that parses YAML.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import yaml

from robustbert.config.run_config import RunConfig
from robustbert.config.sections import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `4e-4` as a string; people who write learning rates mean a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> RunConfig:
    """Read one run's YAML file, apply `section.key=value` overrides, check everything.

    Relative paths inside the configuration stay relative to the folder in which the command runs.
    ConfigError, one line with the way out: file missing, not YAML, unknown key, wrong type, sizes that do not fit.
    """
    path = Path(path)
    tree = _read_with_base(path, seen=())
    for override in overrides:
        _apply_override(tree, override)
    run = tree.setdefault("run", {})
    if isinstance(run, dict) and not run.get("name"):
        run["name"] = path.stem
    return _build(RunConfig, tree, "")


def load_dataclass(kind: type, path: str | Path):
    """A YAML file of any other kind, as the dataclass it stands for; ConfigError as of load_config, with the file's name."""
    try:
        return _build(kind, _read_with_base(Path(path), seen=()), "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None


def load_section(kind: type, name: str, values: Mapping, overrides: list[str] | tuple[str, ...] = ()):
    """One section (`kind`, called `name`) from plain values and `name.key=value` overrides, with the checks of load_config."""
    tree = {name: dict(values)}
    for override in overrides:
        _apply_override(tree, override)
    if foreign := [section for section in tree if section != name]:
        raise ConfigError(f"{foreign[0]}: only keys of the section {name} can be given here, such as {name}.{dataclasses.fields(kind)[0].name}=...")
    return _build(kind, tree[name], name)


def load_names(path: str | Path) -> list[str]:
    """The names in a file that dump_names wrote, none where there is no file yet; ConfigError where it holds no such list."""
    path = Path(path)
    try:
        names = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader) if path.exists() else None  # a SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if names is not None and not isinstance(names, list):
        raise ConfigError(f"{path}: a YAML list of names belongs here, such as [n3, n7]; take another file")
    return [str(name) for name in names or ()]


def dump_names(names: list[str]) -> str:
    """Names as a YAML list in one line, each once: as an override takes it."""
    return yaml.safe_dump(list(dict.fromkeys(names)), default_flow_style=True, width=float("inf"))


def dump_value(value) -> str:
    """A plain value as YAML in one line: as an override takes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False).removesuffix("\n").removesuffix("\n...")


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML that load_config reads back to an equal RunConfig."""
    return yaml.safe_dump(_plain(config), sort_keys=False)


def config_to_dict(config) -> dict:
    """A section or a whole configuration as plain dicts, lists and scalars."""
    return _plain(config)


def build_section(kind: type, values: dict, name: str):
    """One section from plain values, with the checks and messages of load_config."""
    return _build(kind, values, name)


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict:
    if path in seen:
        raise ConfigError(f"{path}: `base` leads back to itself: {' -> '.join(map(str, (*seen, path)))}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration has sections (`run:`, `model:`, ...), this is a {type(tree).__name__}")
    base = tree.pop("base", None)
    if base is None:
        return tree
    return _merge(_read_with_base(path.parent / str(base), (*seen, path)), tree)


def _merge(under: dict, over: dict) -> dict:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def parse_override(override: str) -> tuple[str, object]:
    """`section.key=value` as the key's name and its value, parsed as YAML; ConfigError where it is not of this form."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"override {override!r} is not of the form section.key=value, for instance optim.lr=4e-4")
    try:
        return name, yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not YAML") from None


def _apply_override(tree: dict, override: str) -> None:
    name, value = parse_override(override)
    *sections, key = name.split(".")
    node = tree
    for section in sections:
        child = node.get(section)
        if not isinstance(child, dict):
            child = node[section] = {}
        node = child
    node[key] = value


def _build(kind, value, where: str):
    """Turn a YAML value into `kind` (a dataclass, a tuple, a union, a Literal or a scalar type) or raise ConfigError."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, where)
    if origin is typing.Literal:
        if any(value == argument and type(value) is type(argument) for argument in arguments):  # 1 is not true
            return value
        words = [str(argument).lower() if isinstance(argument, bool) else str(argument) for argument in arguments]
        raise ConfigError(f"{where} must be one of {', '.join(words)}; it is {value!r}{_did_you_mean(value, words)}")
    if origin is tuple:
        return _build_tuple(arguments, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{where} must be {_type_name(kind)}, it is {value!r}")


def _build_dataclass(kind, value, where: str):
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must have keys of its own, it is {value!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for key in value:
        if key not in fields:
            raise ConfigError(f"unknown key {_join(where, key)}{_did_you_mean(key, fields)}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ConfigError(f"{_join(where, name)} is missing")
    return kind(**{key: _build(hints[key], item, _join(where, key)) for key, item in value.items()})


def _build_union(kinds, value, where: str):
    if value is None and type(None) in kinds:
        return None
    kinds = [kind for kind in kinds if kind is not type(None)]
    if any(value in typing.get_args(kind) for kind in kinds if typing.get_origin(kind) is typing.Literal and isinstance(value, str)):
        return value
    if isinstance(value, Mapping):
        kinds = [kind for kind in kinds if dataclasses.is_dataclass(kind)] or kinds
    return _build(kinds[0], value, where)


def _build_tuple(arguments, value, where: str):
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{where} must be a list, it is {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_build(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(arguments):
        raise ConfigError(f"{where} must have {len(arguments)} values, it has {len(value)}")
    return tuple(_build(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value)))


def _plain(value):
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _join(where: str, key) -> str:
    return f"{where}.{key}" if where else str(key)


def _type_name(kind) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}.get(kind, kind.__name__)


def _did_you_mean(value, candidates) -> str:
    near = difflib.get_close_matches(str(value), [str(c) for c in candidates], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(map(str, candidates))}"


def _nearest_file(path: Path) -> str:
    siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
