"""MANIFEST.json: what a checkpoint consists of, and the proof that its files are what was written.

Imports no torch: the launcher and the inspection tool read checkpoints through it.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import xxhash

MANIFEST, COMMITTED = "MANIFEST.json", "COMMITTED"
FORMAT_VERSION = 2
CHECKSUM = "xxh128"  # finds every accident, at the speed of memory; it is no proof against someone who forges files
_READ_BYTES = 16 * 2**20
_STEP_FOLDER = re.compile(r"step_(\d{8,})$")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names it and what is wrong with it."""


@dataclass(frozen=True)
class Manifest:
    """One checkpoint's record."""

    state: dict  # step, tokens and what else training counts
    config: dict  # the resolved configuration of the run
    layout: dict  # the sizes of the axes it was saved at
    files: dict  # name -> {"bytes": size, CHECKSUM: hex}


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


def step_of(folder: Path) -> int:
    """The step of a checkpoint's folder."""
    return int(_STEP_FOLDER.match(folder.name)[1])


def unfinished_checkpoints(checkpoints: Path) -> list[Path]:
    """Folders with a checkpoint's name that were never committed, or have lost the mark of it."""
    return [path for path in checkpoints.glob("step_*") if _STEP_FOLDER.match(path.name) and not (path / COMMITTED).exists()]


def commit(staging: Path, final: Path, manifest: Manifest) -> None:
    """Write the manifest and COMMITTED into the staging folder and rename it into place, each step flushed to disk.

    COMMITTED holds the manifest's own checksum, so that nothing in the folder can change unnoticed.
    """
    place = {name: manifest.state.get(name) for name in ("step", "tokens")}  # for whoever looks into the file
    text = json.dumps({"format_version": FORMAT_VERSION, **place, **manifest.__dict__}, indent=1)
    write_text_file(staging / MANIFEST, text)
    write_text_file(staging / COMMITTED, checksum(text.encode()) + "\n")
    _flush_folder(staging)
    os.rename(staging, final)
    _flush_folder(final.parent)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a committed checkpoint, its files not looked at. CheckpointError where it is not what was written."""
    try:
        committed = (folder / COMMITTED).read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no complete checkpoint: it has no {COMMITTED}") from None
    except OSError as error:
        raise CheckpointError(f"{folder / COMMITTED} cannot be read: {error}") from None
    try:
        text = (folder / MANIFEST).read_bytes()
        record = json.loads(text)
        version = record["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(f"{folder}: format version {version}, this program reads {FORMAT_VERSION}")
        if checksum(text) != committed:
            raise CheckpointError(f"{folder / MANIFEST} has another content than was committed (its checksum differs)")
        return Manifest(**{key: record[key] for key in ("state", "config", "layout", "files")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / MANIFEST} cannot be read: {error!r}") from None


def verify(folder: Path) -> Manifest:
    """The manifest, after every file's size and checksum were compared with it. CheckpointError on the first difference."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest, list(manifest.files))
    return manifest


def verify_files(folder: Path, manifest: Manifest, names: list[str]) -> None:
    """Compare some of a checkpoint's files with its manifest. CheckpointError on the first difference."""
    for name in names:
        path, expected = folder / name, manifest.files[name]
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise CheckpointError(f"{path} has {size} bytes, it was written with {expected['bytes']}")
            digest = checksum_of_file(path)
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from None
        if digest != expected[CHECKSUM]:
            raise CheckpointError(f"{path} has another content than was written (its checksum differs)")


def checksum(content: bytes) -> str:
    """Of a small text, in hexadecimal."""
    return xxhash.xxh3_128(content).hexdigest()


def checksum_of_file(path: Path) -> str:
    """Of a file, in hexadecimal. OSError where it cannot be read."""
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(_READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        while num_bytes := file.readinto(buffer):
            digest.update(buffer[:num_bytes])
    return digest.hexdigest()


def set_aside(folder: Path) -> Path:
    """Rename a checkpoint to rejected_..., which never counts as one; returns its new path."""
    aside, number = folder.with_name(f"rejected_{folder.name}"), 2
    while aside.exists():
        aside = folder.with_name(f"rejected_{folder.name}.{number}")
        number += 1
    os.rename(folder, aside)
    return aside


def write_text_file(path: Path, text: str) -> dict:
    """Write a small file and flush it to disk; returns {"bytes", CHECKSUM}."""
    content = text.encode()
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": len(content), CHECKSUM: checksum(content)}


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
