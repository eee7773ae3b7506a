"""JSON of task files: read with every fault named by file, line and field."""

import json
from collections.abc import Iterator
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.text_file import read_text

_KINDS = {list: "a list", str: "a text", int: "a whole number", dict: "an object", bool: "true or false"}


def load_json(path: Path):
    """The content of a JSON file. DataError where it cannot be read or is no JSON."""
    return _parsed(_text_of(path), str(path))


def load_json_lines(path: Path) -> Iterator[tuple[str, object]]:
    """("FILE, line N", its content) for every line that is not empty. DataError at one that is no JSON."""
    for number, line in enumerate(_text_of(path).split("\n"), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, _parsed(line, place)


def field(mapping, name: str, kind: type, place: str):
    """mapping[name] where it is there and of the kind (list, str, int, dict or bool). DataError that begins with `place`."""
    if not isinstance(mapping, dict) or name not in mapping:
        raise DataError(f"{place}: has no `{name}`; is it the task's own file?")
    value = mapping[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DataError(f"{place}: `{name}` is {str(value)[:40]!r}, it should be {_KINDS[kind]}")
    return value


def texts(mapping, name: str, place: str) -> list[str]:
    """mapping[name] where it is a list of texts. DataError that begins with `place`."""
    values = field(mapping, name, list, place)
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"{place}: `{name}` has {str(value)[:40]!r} as its item {i}, it should be a text")
    return values


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the task's own file belongs there") from None


def _parsed(text: str, place: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON, or cut off ({error}); download it again") from None
