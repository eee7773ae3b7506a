"""Files of raw text as bytes: compressed or not, with the position kept and damage named."""

import bz2
import gzip
import io
import lzma
import zlib
from importlib import import_module
from pathlib import Path

from robustbert.data.errors import DataError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
# By content: a file may have lost its ending.
_MAGICS = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_LONGEST_MAGIC = 6
# What the decompressors raise where a file is cut off or damaged. bz2 raises a bare OSError, and so does a bad disk.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError)
_TAIL_BYTES = 512


class InputFile:
    """One input file, opened and decompressed; a context manager with what readers need of a binary file.

    tail: the last bytes that were read, for formats whose end can be told. position: bytes read, as they lie on disk.
    """

    def __init__(self, path: Path):
        self.path = path
        self.tail = b""
        self._raw = open(path, "rb")
        self._seekable = self._raw.seekable()
        try:
            self.compression = _compression(path, self._raw.peek(_LONGEST_MAGIC))
            self._file = decompressed(self._raw, self.compression)
        except BaseException:
            self._raw.close()
            raise
        self.readline = self._file.readline

    def __enter__(self) -> "InputFile":
        return self

    def __exit__(self, *_exception) -> None:
        self._raw.close()

    @property
    def position(self) -> int:
        """How many of the file's bytes, as they lie on disk, were read; 0 for a pipe."""
        return self._raw.tell() if self._seekable else 0

    def read(self, size: int = -1) -> bytes:
        """Up to size bytes, decompressed."""
        content = self._file.read(size)
        self.tail = (self.tail + content[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return content

    def damage(self, error: Exception) -> str:
        """One line about an exception of DAMAGE."""
        if isinstance(error, OSError) and error.errno is not None:
            return f"{self.path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        kind = COMPRESSIONS.get(self.compression, "file")
        return (
            f"{self.path}: damaged or cut-off {kind} near byte {self.position} ({error}); copy or download it again, and "
            "test it with the tool that made it"
        )


def decompressed(file, compression: str):
    """A binary file that decompresses another one; compression is one of COMPRESSIONS, or empty."""
    if compression == ".gz":
        return gzip.GzipFile(fileobj=file)
    if compression == ".bz2":
        return bz2.BZ2File(file)
    if compression == ".xz":
        return lzma.LZMAFile(file)
    if compression == ".zst":
        return import_for("backports.zstd", "a .zst file").ZstdFile(file)
    return file


def peeked_compression(content: bytes) -> str:
    """The compression that the first bytes of a content tell, or an empty string."""
    return next((ending for magic, ending in _MAGICS.items() if content.startswith(magic)), "")


def import_for(module: str, purpose: str):
    """Import a library that only some corpora need; DataError with the way out where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{purpose} needs the library {module} ({error}); install it with pip install '.[corpora]'") from None


def _compression(path: Path, start: bytes) -> str:
    return path.suffix if path.suffix in COMPRESSIONS else peeked_compression(start)


class BoundedReader(io.RawIOBase):
    """A read-only view of any object with read(), for libraries that ask for a file."""

    def __init__(self, source):
        self._source = source

    def readable(self) -> bool:
        """True: a file for reading."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer as far as one read of the source goes."""
        content = self._source.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
