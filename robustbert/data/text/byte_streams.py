"""Files of raw text as bytes: compressed or not, with the position kept and damage named."""

import bz2
import io
import lzma
import sys
import zlib
from importlib import import_module
from pathlib import Path

from robustbert.data.errors import DataError

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
_BZIP2_MAGICS = tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90"))
_ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", *(bytes([0x50 + i]) + b"\x2a\x4d\x18" for i in range(16)))  # the latter: skippable frames
# By content: a file may have lost its ending, or have another one's.
_MAGICS = {".gz": (b"\x1f\x8b",), ".bz2": _BZIP2_MAGICS, ".xz": (b"\xfd7zXZ\x00",), ".zst": _ZSTD_MAGICS}
_LONGEST_MAGIC = 10
_READ_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 17
_MAX_PADDING_BYTES = 1 << 16
_TAIL_BYTES = 512


class DamagedStream(EOFError):
    """A compressed stream that is damaged, cut off, or followed by what is none: every decompressor's own error."""


# What reading a file can raise: a damaged stream, a library's end of file, a bad disk.
DAMAGE = (DamagedStream, EOFError, OSError)


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

    def start(self, size: int) -> tuple[bytes, str]:
        """The first bytes, up to size, and what is wrong with them (an empty string: nothing); for a file just opened."""
        content = b""
        try:
            while len(content) < size and (more := self._file.read1(size - len(content))):
                content += more
        except DamagedStream as error:
            return content, self.damage(error)
        return content, ""

    def damage(self, error: Exception) -> str:
        """One line about an exception of DAMAGE."""
        if isinstance(error, OSError) and error.errno is not None:
            return f"{self.path}: cannot be read ({error.strerror or error}); check the path and its permissions"
        kind = COMPRESSIONS.get(self.compression, "file")
        return (
            f"{self.path}: damaged or cut-off {kind} near byte {self.position} ({error}); copy or download it again, and "
            "test it with the tool that made it"
        )


class _Members(io.RawIOBase):
    """The content of a compressed file: one stream (gzip: member, zstd: frame) after another.

    Python's own BZ2File and LZMAFile take a damaged header of any but the first stream for trailing garbage and end there
    without an error (CPython 3.11 to 3.14, `DecompressReader`, trailing_error): a dump of thousands of streams would lose
    its rest silently. Here another stream follows a stream, or the end, or a little padding of zeros; else DamagedStream.
    """

    def __init__(self, file, compression: str):
        self._file, self._compression = file, compression
        self._new_decompressor, self._error = _decompressor_of(compression)
        self._stream, self._num_streams = self._new_decompressor(), 1
        self._pending = b""  # read from the file, not decompressed yet

    def readable(self) -> bool:
        """True: a file for reading."""
        return True

    def readinto(self, buffer) -> int:
        """Fill the buffer, at least with one byte unless the file has ended. DamagedStream."""
        content = b""
        while not content:
            if self._stream.eof and not self._next_stream():
                return 0
            given = b""
            if self._stream.needs_input:
                given, self._pending = self._pending or self._file.read(_READ_BYTES), b""
                if not given:
                    raise DamagedStream(f"it ends within its stream {self._num_streams}")
            try:
                content = self._stream.decompress(given, len(buffer))
            except self._error as error:
                raise DamagedStream(f"{error}, in its stream {self._num_streams}") from None
        buffer[: len(content)] = content
        return len(content)

    def _next_stream(self) -> bool:
        """Begin the stream after one that has ended; False at the end of the file."""
        rest, num_zeros = self._stream.unused_data, 0
        while not (start := rest.lstrip(b"\0")):
            num_zeros += len(rest)
            if num_zeros > _MAX_PADDING_BYTES:
                raise DamagedStream(f"only zeros follow its stream {self._num_streams}")
            rest = self._file.read(_READ_BYTES)
            if not rest:
                return False
        if len(start) < _LONGEST_MAGIC:
            start += self._file.read(_READ_BYTES)
        if peeked_compression(start) != self._compression:
            raise DamagedStream(f"what follows its stream {self._num_streams} is no {COMPRESSIONS[self._compression]}")
        self._stream, self._num_streams, self._pending = self._new_decompressor(), self._num_streams + 1, start
        return True


class _GzipDecompressor:
    """One member of a gzip file, with the interface of bz2's, lzma's and zstd's decompressors; checks its CRC and length."""

    def __init__(self):
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        """Whether all that was given is decompressed."""
        return not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        """What was given beyond the member's end."""
        return self._member.unused_data

    def decompress(self, content: bytes, max_length: int) -> bytes:
        """At most max_length bytes; zlib.error."""
        return self._member.decompress(self._member.unconsumed_tail + content, max_length)


def decompressed(file, compression: str):
    """A binary file that decompresses another one; compression is one of COMPRESSIONS, or empty.

    Reading raises DamagedStream. DataError where the library for the compression is not installed.
    """
    return io.BufferedReader(_Members(file, compression), _BUFFER_BYTES) if compression else file


def peeked_compression(content: bytes) -> str:
    """The compression that the first bytes of a content tell, or an empty string."""
    return next((ending for ending, magics in _MAGICS.items() if content.startswith(magics)), "")


def import_for(module: str, purpose: str):
    """Import a library that only some corpora need; DataError with the way out where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DataError(f"{purpose} needs the library {module} ({error}); install it with pip install '.[corpora]'") from None


def _decompressor_of(compression: str):
    """A function that makes a decompressor of one stream, and the exceptions that it raises."""
    if compression == ".gz":
        return _GzipDecompressor, zlib.error
    if compression == ".bz2":
        return bz2.BZ2Decompressor, (OSError, ValueError)
    if compression == ".xz":
        return lzma.LZMADecompressor, lzma.LZMAError
    zstd = import_for("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "a .zst file")
    # The largest window is allowed (`zstd --long=31`): unless told otherwise the library refuses more than 2^27 bytes.
    options = {zstd.DecompressionParameter.window_log_max: zstd.DecompressionParameter.window_log_max.bounds()[1]}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _compression(path: Path, start: bytes) -> str:
    return peeked_compression(start) or (path.suffix if path.suffix in COMPRESSIONS else "")


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
