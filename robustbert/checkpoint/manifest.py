"""MANIFEST.json: what a checkpoint consists of, and the proof that its files are what was written.

Imports no torch: the launcher and the inspection tool read checkpoints through it.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

MANIFEST, COMMITTED = "MANIFEST.json", "COMMITTED"
FORMAT_VERSION = 1
_STEP_FOLDER = re.compile(r"step_(\d{8,})$")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it and what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """One checkpoint's record."""

    state: dict  # step, tokens and what else training counts
    config: dict  # the resolved configuration of the run
    layout: dict  # the sizes of the axes it was saved at
    files: dict  # name -> {"bytes": size, "sha256": hex}


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"step_{step:08d}"


def committed_checkpoints(checkpoints: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first; unfinished ones do not count."""
    found = []
    for path in checkpoints.glob("step_*"):
        match = _STEP_FOLDER.match(path.name)
        if match and (path / COMMITTED).exists():
            found.append((int(match[1]), path))
    return [path for _, path in sorted(found)]


def describe_files(folder: Path, names: list[str]) -> dict:
    """Flush the named files to disk and return {name: {"bytes", "sha256"}}."""
    described = {}
    for name in names:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            described[name] = {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}
    return described


def commit(staging: Path, final: Path, manifest: Manifest) -> None:
    """Write the manifest and COMMITTED into the staging folder and rename it into place, each step flushed to disk."""
    record = {"format_version": FORMAT_VERSION, **manifest.__dict__}
    _write_flushed(staging / MANIFEST, json.dumps(record, indent=1))
    _write_flushed(staging / COMMITTED, "")
    _flush_folder(staging)
    os.rename(staging, final)
    _flush_folder(final.parent)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a committed checkpoint, its files not looked at. CheckpointError where there is none."""
    if not (folder / COMMITTED).exists():
        raise CheckpointError(f"{folder} is no complete checkpoint: it has no {COMMITTED}")
    try:
        record = json.loads((folder / MANIFEST).read_text())
        if record["format_version"] != FORMAT_VERSION:
            raise CheckpointError(f"{folder}: format version {record['format_version']}, this program reads {FORMAT_VERSION}")
        return Manifest(**{key: record[key] for key in ("state", "config", "layout", "files")})
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{folder}/{MANIFEST} cannot be read: {error!r}") from None


def verify(folder: Path) -> Manifest:
    """The manifest, after every file's size and checksum were compared with it. CheckpointError on the first difference."""
    manifest = read_manifest(folder)
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.exists():
            raise CheckpointError(f"{path} is missing")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError(f"{path} has {size} bytes, it was written with {expected['bytes']}")
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                raise CheckpointError(f"{path} has another content than was written (sha256 differs)")
    return manifest


def _write_flushed(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
