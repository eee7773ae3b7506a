"""OpenWebText: a tar of xz'd tars of texts, one document a text; the subsets may also be given by themselves."""

import io
import tarfile
from collections.abc import Iterator

from robustbert.data.text.byte_streams import DAMAGE, BoundedReader, InputFile, decompressed, peeked_compression
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, Reader, ReaderOptions, Record

_BLOCK_BYTES = 512
_MAGIC_PLACE = slice(257, 262)  # of `ustar` in a tar's first block


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """The texts of an archive and of the archives in it; a file that is no archive is one text."""
    yield from _texts(file, str(file.path))


def extract(record: Record, options: ReaderOptions) -> str | BadInput:
    """The text itself."""
    try:
        return record.content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return BadInput(f"{record.place}: byte {error.start} is not UTF-8; convert or drop the text")


def _texts(source, place: str) -> Iterator[Record | BadInput]:
    """The texts of an open file, whose content tells what it is."""
    file = io.BufferedReader(BoundedReader(source), 1 << 16)
    try:
        start = file.peek(_BLOCK_BYTES)
        if compression := peeked_compression(start):
            yield from _texts(decompressed(file, compression), place)
        elif start[_MAGIC_PLACE] == b"ustar":
            yield from _members(_Tail(file), place)
        elif content := file.read(MAX_RECORD_BYTES + 1):
            if len(content) > MAX_RECORD_BYTES:
                yield BadInput(f"{place}: has more than {MAX_RECORD_BYTES} bytes and is no archive; a text has one document")
            else:
                yield Record(content, place)
    except (*DAMAGE, tarfile.TarError) as error:
        yield BadInput(f"{place}: damaged or cut-off archive ({error}); copy or download it again")


def _members(file: "_Tail", place: str) -> Iterator[Record | BadInput]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            if member.isfile() and member.size:
                yield from _texts(archive.extractfile(member), f"{place}: {member.name}")
    while file.read(1 << 16):
        pass
    if file.tail.strip(b"\0") or len(file.tail) < _BLOCK_BYTES:  # tarfile takes a cut between two members for the end
        yield BadInput(f"{place}: cut-off archive, its end is missing; copy or download it again")


class _Tail:
    """A file whose last block is kept: a whole tar ends with blocks of zeros."""

    def __init__(self, file):
        self._file, self.tail = file, b""

    def read(self, size: int) -> bytes:
        content = self._file.read(size)
        self.tail = (self.tail + content[-_BLOCK_BYTES:])[-_BLOCK_BYTES:]
        return content


READER = Reader(records, extract, (".tar", ".tar.xz", ".tar.gz", "_data.xz"))
