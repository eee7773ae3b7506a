"""What tells one content of foreign data from another, in a few milliseconds however large they are."""

import hashlib
import os
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.foreign.layouts import MEGATRON, ForeignIndex

_NUM_BLOCKS, _BLOCK_BYTES = 16, 4096


def identity_of(prefix: str | Path) -> str:
    """A short text that stays the same as long as the data do, wherever they are copied: 32 hexadecimal digits.

    prefix: of a .bin and .idx, or the folder of a saved data set. It is a hash of the files' endings and sizes and of
    16 blocks of 4 KiB spread over each of them, the first and the last among them: data that are made again differ in it, a
    single changed token between the blocks does not show. Of fairseq's data dict.txt is part. DataError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in _files(Path(prefix)):
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                digest.update(f"{path.suffix} {size}\n".encode())
                last = max(0, size - _BLOCK_BYTES)
                for offset in sorted({last * i // (_NUM_BLOCKS - 1) for i in range(_NUM_BLOCKS)}):
                    digest.update(os.pread(file.fileno(), _BLOCK_BYTES, offset))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return digest.hexdigest()


def _files(prefix: Path) -> list[Path]:
    if prefix.is_dir():
        return sorted(path for path in prefix.iterdir() if path.suffix in (".arrow", ".json"))
    files, dictionary = [Path(f"{prefix}.idx"), Path(f"{prefix}.bin")], prefix.parent / "dict.txt"
    return [*files, dictionary] if dictionary.is_file() and ForeignIndex(prefix).kind != MEGATRON else files
