"""Any model as a Hugging Face folder: converted once, checked, and kept; what finetuning starts from."""

import hashlib
from pathlib import Path

from robustbert.checkpoint.manifest import COMMITTED
from robustbert.convert.convert import ConversionError, convert, find_source
from robustbert.convert.whole_model import is_checkpoint


def as_huggingface_folder(source: Path, cache: Path) -> Path:
    """A folder that transformers' from_pretrained reads, for whatever tools/convert takes as its source.

    A Hugging Face folder is returned as it is. Of anything else the converted model is kept in the folder `cache` (made
    where it is missing) under a name that changes with the source's content, and the next call finds it there. Several
    processes may ask at once. ConversionError, CheckpointError: the source cannot be converted.
    """
    source = find_source(source)
    if (source / "config.json").exists():
        return source
    converted = cache / f"{source.name}-{_fingerprint(source)}"
    if not converted.exists():
        try:
            convert(source, "huggingface", converted)
        except ConversionError:
            if not converted.exists():  # another process was faster
                raise
    return converted


def _fingerprint(source: Path) -> str:
    """Eight characters that change with the model: by the checksum that a checkpoint carries."""
    assert is_checkpoint(source)
    identity = [str(source.resolve()), (source / COMMITTED).read_text()]
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:8]
