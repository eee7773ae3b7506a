"""Any model as a Hugging Face folder: converted once, checked, and kept; what finetuning starts from."""

import contextlib
import fcntl
import hashlib
from pathlib import Path

from robustbert.checkpoint.manifest import COMMITTED
from robustbert.convert.convert import convert
from robustbert.convert.sources import Source, find_source
from robustbert.convert.tokenizer_files import transformers_has_tokenizer


def as_huggingface_folder(source: Path, cache: Path, tokenizer: Path | None = None) -> Path:
    """A folder that transformers' from_pretrained reads, for whatever tools/convert takes as its source.

    A Hugging Face folder with a tokenizer is returned as it is. Of anything else the converted model is kept in the folder `cache` (made
    where it is missing) under a name that changes with the source's content, and the next call finds it there. Of several
    processes that ask at once one converts, the others wait. tokenizer: the folder of a source's that has none beside it.
    ConversionError, CheckpointError: the source cannot be converted.
    """
    found = find_source(source)
    if found.format == "huggingface" and tokenizer is None and transformers_has_tokenizer(found.path):
        return found.path
    converted = cache / f"{found.path.stem}-{_fingerprint(found, tokenizer)}"
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


def _fingerprint(source: Source, tokenizer: Path | None) -> str:
    """Eight characters that change with the model and the tokenizer that was named.

    They come from the checksum that a checkpoint carries, or from the files' sizes and times.
    """
    identity = [str(path.resolve()) for path in (source.path, tokenizer) if path is not None]
    if source.format == "robustbert":
        identity.append((source.path / COMMITTED).read_text())
    else:
        files = sorted(source.path.iterdir()) if source.path.is_dir() else [source.path]
        identity += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:8]
