"""Any model as a Hugging Face folder: converted once, checked, and kept; what finetuning starts from."""

import contextlib
import fcntl
import hashlib
from pathlib import Path

from robustbert.checkpoint.manifest import COMMITTED
from robustbert.convert.convert import convert
from robustbert.convert.sources import Source, find_source


def as_huggingface_folder(source: Path, cache: Path, tokenizer: Path | None = None) -> Path:
    """A folder that transformers' from_pretrained reads, for whatever tools/convert takes as its source.

    A Hugging Face folder is returned as it is. Of anything else the converted model is kept in the folder `cache` (made
    where it is missing) under a name that changes with the source's content, and the next call finds it there. Of several
    processes that ask at once one converts, the others wait. tokenizer: the folder of a source's that has none beside it.
    ConversionError, CheckpointError: the source cannot be converted.
    """
    found = find_source(source)
    if found.format == "huggingface":
        return found.path
    converted = cache / f"{found.path.stem}-{_fingerprint(found)}"
    if not converted.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f".{converted.name}.lock"):
            if not converted.exists():
                convert(source, "huggingface", converted, tokenizer)
    return converted


@contextlib.contextmanager
def _locked(path: Path):
    """One process at a time; the lock of a killed one is free."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(source: Source) -> str:
    """Eight characters that change with the model: by the checksum that a checkpoint carries, or a file's size and time."""
    identity = [str(source.path.resolve())]
    if source.format == "robustbert":
        identity.append((source.path / COMMITTED).read_text())
    else:
        status = source.path.stat()
        identity += [str(status.st_size), str(status.st_mtime_ns)]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:8]
