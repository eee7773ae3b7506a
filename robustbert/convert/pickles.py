"""Files that may be pickles or no weights at all, read without running anything that is in them.

torch's weights_only reader makes tensors and plain values, and of classes only those that a caller names. A file that asks
for anything else is refused before it gets it.
"""

import re
import zipfile
from pathlib import Path

import torch

from robustbert.convert.errors import ConversionError

_GIT_LFS = b"version https://git-lfs.github.com/spec/"
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
_HEAD_BYTES = 512


def load_pickle(path: Path, what: str, allowed: list = ()):
    """The content that torch.save wrote, on the CPU, its tensors mapped where the file allows it.

    what: the kind of file, for messages. allowed: classes beside torch's own, or (class, qualified name) of stand-ins.
    ConversionError: not readable, or a pickle that asks for other classes or functions; none of them is called.
    """
    refuse_stand_in(path)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of many kinds, for a damaged file can hold anything
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise ConversionError(
                f"{path}: refused, for it asks for {wanted[1].rstrip('.,`')}, which no model needs; nothing of it was run"
            ) from None
        reason = str(error).partition("WeightsUnpickler error: ")[2] or str(error)  # without torch's advice before it
        reason = " ".join(reason.split())[:120] or type(error).__name__
        raise ConversionError(f"{path}: cannot be read as {what} ({reason}); it is cut off or damaged") from None


def refuse_stand_in(path: Path) -> None:
    """ConversionError if the file is what a failed download leaves in a file's place: nothing, a Git-LFS pointer, a web page."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise ConversionError(f"{path}: is empty; download it again")
    if head.startswith(_GIT_LFS):
        raise ConversionError(f"{path}: is a Git-LFS pointer, not the file itself; run `git lfs pull` where it was cloned")
    if head.lstrip().lower().startswith(_MARKUP):
        raise ConversionError(f"{path}: is a web page saved under this name; download the file itself")
