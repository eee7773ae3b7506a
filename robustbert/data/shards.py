"""Corpora that were prepared in parts: which prefixes a name with * or ? stands for, and whether all parts are there."""

import glob
import json
import re
from pathlib import Path

from robustbert.data.corpus import MANIFEST_FORMAT
from robustbert.data.errors import DataError

_SHARD = re.compile(r"(?P<name>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})")


def shard_prefix(prefix: str, index: int, count: int) -> str:
    """The prefix of the part number `index` (from 0 on) of `count`."""
    return f"{prefix}-{index:05d}-of-{count:05d}"


def find_prefixes(path: str) -> list[Path]:
    """The prefixes that a path of data.train or data.valid stands for, sorted; without * and ? the path itself.

    DataError: a pattern that no whole corpus matches, or parts that are missing among those that match.
    """
    if not glob.has_magic(path):
        return [Path(path)]
    prefixes = sorted(Path(name.removesuffix(".json")) for name in glob.glob(f"{path}.json") if _is_manifest(name))
    if not prefixes:
        raise DataError(f"{path}: matches no prepared corpus (PREFIX.json) from {Path.cwd()}; check the path")
    _check_parts(path, prefixes)
    return prefixes


def _check_parts(path: str, prefixes: list[Path]) -> None:
    parts: dict[tuple[str, int], set[int]] = {}
    for prefix in prefixes:
        if match := _SHARD.fullmatch(str(prefix)):
            parts.setdefault((match["name"], int(match["count"])), set()).add(int(match["index"]))
    counts: dict[str, set[int]] = {}
    for name, count in parts:
        counts.setdefault(name, set()).add(count)
    for name, several in counts.items():
        if len(several) > 1:
            listed = " and of ".join(map(str, sorted(several)))
            raise DataError(f"{path}: {name} is there in parts of {listed}, the same text twice; name one: {name}-*-of-{max(several):05d}")
    for (name, count), found in parts.items():
        missing = sorted(set(range(count)) - found)
        if missing:
            some = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise DataError(
                f"{path}: {len(missing)} of the {count} parts of {name} are not whole (number {some}); prepare them with "
                f"tools/preprocess --shard {missing[0]}/{count}, or name the parts that are there"
            )


def _is_manifest(path: str) -> bool:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == MANIFEST_FORMAT
