"""Corpora in parts: which prefixes a path of data.train stands for (a pattern, a list, a folder), and whether all are there."""

import glob
import itertools
import json
import re
from pathlib import Path

from robustbert.data.corpus import MANIFEST_FORMAT, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.foreign.layouts import looks_foreign
from robustbert.data.foreign.saved_datasets import is_saved_dataset, saved_splits

_SHARD = re.compile(r"(?P<name>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})")


def shard_prefix(prefix: str, index: int, count: int) -> str:
    """The prefix of the part number `index` (from 0 on) of `count`."""
    return f"{prefix}-{index:05d}-of-{count:05d}"


def find_prefixes(path: str, split: str = "train") -> list[Path]:
    """The prefixes that a path of data.train or data.valid stands for, sorted; without * and ? the path itself.

    A colon joins several paths, as in fairseq. A folder of fairseq-preprocess stands for its files of the split: `train`,
    `train1`, `train2`, ... as far as they go (fairseq 0.12.2, load_indexed_dataset with combine), of `valid` for the one.
    DataError: a pattern that no whole corpus matches, or parts that are missing among those that match.
    """
    if ":" in path and not _is_there(path):
        return [prefix for one in path.split(":") if one for prefix in find_prefixes(one, split)]
    stem, _, ending = path.rpartition(".")
    if ending in ("bin", "idx") and Path(path).is_file() and not corpus_file(path, "json").exists() and _is_there(stem):
        raise DataError(f"{path}: is a file of indexed data; name them by their prefix, path: {stem}")
    if not glob.has_magic(path):
        return _in_folder(Path(path), split) if Path(path).is_dir() else [Path(path)]
    prefixes = {Path(name.removesuffix(".json")) for name in glob.glob(f"{path}.json") if _is_manifest(name)}
    prefixes |= _foreign_prefixes(path, prefixes)
    folders = [Path(name) for name in sorted(glob.glob(path)) if Path(name).is_dir() and holds_data(Path(name), split)]
    if not prefixes and not folders:
        raise DataError(f"{path}: matches no prepared corpus (PREFIX.json) and no PREFIX.idx from {Path.cwd()}; check the path")
    _check_parts(path, sorted(prefixes))
    return sorted(prefixes) + [prefix for folder in folders for prefix in _in_folder(folder, split)]


def _foreign_prefixes(path: str, own: set[Path]) -> set[Path]:
    found = {Path(name.removesuffix(".idx")) for name in glob.glob(f"{path}.idx")} - own
    found = {prefix for prefix in found if looks_foreign(prefix)}
    if own:  # one of our parts that lost its manifest is a missing part
        found = {prefix for prefix in found if not _SHARD.fullmatch(str(prefix))}
    if own and found:
        raise DataError(
            f"{path}: matches corpora of tools/preprocess ({min(own)}) and other indexed data ({min(found)}); name them in two entries"
        )
    return found


def _is_there(path: str) -> bool:
    return Path(path).exists() or any(corpus_file(path, ending).exists() for ending in ("json", "idx", "bin"))


def holds_data(folder: Path, split: str = "train") -> bool:
    """Whether a folder is one of fairseq-preprocess, or a saved data set."""
    return (folder / f"{split}.idx").is_file() or is_saved_dataset(folder)


def _in_folder(folder: Path, split: str) -> list[Path]:
    if is_saved_dataset(folder):
        return saved_splits(folder, split)
    numbers = itertools.count() if split == "train" else (0,)
    names = (folder / f"{split}{number or ''}" for number in numbers)
    prefixes = list(itertools.takewhile(lambda prefix: corpus_file(prefix, "idx").is_file(), names))
    if not prefixes:
        raise DataError(
            f"{folder}: is a folder without {split}.idx (of fairseq-preprocess) and no data set that `datasets` saved; name the prefix of "
            "a .bin and .idx"
        )
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
