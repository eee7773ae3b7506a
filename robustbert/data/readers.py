"""Raw text as a stream of pieces of documents, in bounded memory: plain text, JSON lines, the prose inside Python.

Rules, for every reader: a blank line (nothing but white space) ends a paragraph; text is UTF-8; files may be gzipped.
In plain text a run of two or more blank lines, and the end of a file, ends a document. A JSON line is a document.
"""

import glob
import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from robustbert.data.errors import DataError

PYTHON_STDLIB = "python:stdlib"
READERS = ("plain", "jsonl", "python-prose")
# A longer document comes in pieces of about this many characters, cut at the end of a paragraph.
MAX_PIECE_CHARS = 1 << 16
# A paragraph (a file without blank lines, a line without end) is cut here, at the end of a line where there is one.
_MAX_PARAGRAPH_CHARS = 1 << 18
_MAX_LINE_BYTES = 1 << 20
_MAX_JSON_LINE_BYTES = 1 << 28
_GZIP_MAGIC = b"\x1f\x8b"


class Piece(NamedTuple):
    """A document, or a part of a long one: paragraphs, with a blank line between them."""

    text: str
    starts_document: bool


@dataclass(frozen=True)
class TextSource:
    """Files of one kind, or the prose inside Python (which has no files to name)."""

    text: str  # as the user wrote it
    reader: str
    files: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the files as they lie on disk; an estimate for the prose inside Python."""
        if self.reader == "python-prose":
            from robustbert.data.python_prose import ESTIMATED_BYTES

            return ESTIMATED_BYTES
        return sum(path.stat().st_size for path in self.files)

    def identity(self) -> dict:
        """What makes this source the same as before: its files' names, sizes and times, or Python's version."""
        files = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in self.files]
        python = sys.version.split()[0] if self.reader == "python-prose" else None
        return {"text": self.text, "reader": self.reader, "files": files, "python": python}


def find_source(text: str, reader: str | None = None) -> TextSource:
    """Resolve what a user wrote (a file, a glob, `python:stdlib`) and choose the reader by the ending if none is given.

    DataError: no such file, a glob that matches nothing, a folder, an unknown reader.
    """
    if reader is not None and reader not in READERS:
        raise DataError(f"{text}: reader {reader!r} is not known; use one of {', '.join(READERS)}")
    if reader is not None and (text == PYTHON_STDLIB) != (reader == "python-prose"):
        raise DataError(
            f"{text}: the reader python-prose and the source {PYTHON_STDLIB} belong together; give both or no reader"
        )
    if text == PYTHON_STDLIB:
        return TextSource(text, "python-prose", ())
    paths = [Path(text)] if Path(text).exists() else [Path(match) for match in sorted(glob.glob(text, recursive=True))]
    files = tuple(path for path in paths if path.is_file())
    if not files:
        if paths:
            raise DataError(f"{text}: is a folder; name its files, for instance {text.rstrip('/')}/*.txt")
        what = "matches no file" if glob.has_magic(text) else "no such file"
        raise DataError(f"{text}: {what} (looked from {Path.cwd()}); check the path")
    name = files[0].name.removesuffix(".gz")
    return TextSource(text, reader or ("jsonl" if name.endswith((".jsonl", ".ndjson")) else "plain"), files)


def read_pieces(
    source: TextSource, piece_chars: int = MAX_PIECE_CHARS, advance: Callable[[int], None] = lambda num_bytes: None
) -> Iterator[Piece]:
    """The documents of a source, in order; one longer than piece_chars comes in pieces cut at paragraphs.

    advance is called with the number of bytes (as they lie on disk) read since its last call.
    DataError, with the file and the line: not UTF-8, a cut-off or damaged gzip, a line that is not JSON.
    """
    if source.reader == "python-prose":
        from robustbert.data.python_prose import python_prose

        for document in python_prose():
            advance(len(document))
            yield from _cut(_paragraphs(document.splitlines()), piece_chars)
        return
    for path in source.files:
        lines = _lines(path, advance, _MAX_JSON_LINE_BYTES if source.reader == "jsonl" else _MAX_LINE_BYTES)
        if source.reader == "plain":
            yield from _cut(_paragraphs(lines), piece_chars)
            continue
        for document in _json_documents(path, lines):
            yield from _cut((p for p in _paragraphs(document.splitlines()) if p), piece_chars)


def _cut(paragraphs: Iterator[str | None], piece_chars: int) -> Iterator[Piece]:
    """Join paragraphs into pieces; None ends a document."""
    parts, size, starts_document = [], 0, True
    for paragraph in paragraphs:
        if parts and (paragraph is None or size + len(paragraph) > piece_chars):
            yield Piece("\n\n".join(parts), starts_document)
            parts, size, starts_document = [], 0, False
        if paragraph is None:
            starts_document = True
        else:
            parts.append(paragraph)
            size += len(paragraph)
    if parts:
        yield Piece("\n\n".join(parts), starts_document)


def _paragraphs(lines: Iterator[str]) -> Iterator[str | None]:
    """Paragraphs of the lines; None where two or more blank lines stand."""
    parts, size, num_blank = [], 0, 0
    for line in lines:
        if line and not line.isspace():
            if num_blank >= 2:
                yield None
            num_blank = 0
            parts.append(line)
            size += len(line)
            if size < _MAX_PARAGRAPH_CHARS:
                continue
        else:
            num_blank += 1
        if parts:
            yield "\n".join(parts)
            parts, size = [], 0
    if parts:
        yield "\n".join(parts)


def _json_documents(path: Path, lines: Iterator[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line or line.isspace():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not JSON ({error}); mend or drop the line") from None
        text = document.get("text") if isinstance(document, dict) else None
        if not isinstance(text, str):
            raise DataError(f"{path}: line {number} has no text in a field `text`; name the field so, or use another reader")
        # Lone surrogates ("\ud800") are legal in JSON and cannot be encoded.
        yield text.encode("utf-8", "replace").decode("utf-8")


def _lines(path: Path, advance: Callable[[int], None], max_bytes: int) -> Iterator[str]:
    """The lines of a file without their ends; one longer than max_bytes comes in parts."""
    try:
        with open(path, "rb") as raw:
            zipped = path.suffix == ".gz" or raw.peek(2)[:2] == _GZIP_MAGIC
            file = gzip.GzipFile(fileobj=raw) if zipped else raw
            yield from _decoded_lines(path, raw, file, advance, max_bytes)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut-off gzip ({error}); copy or download it again (`gzip -t` tests it)") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path and its permissions") from None


def _decoded_lines(path: Path, raw, file, advance: Callable[[int], None], max_bytes: int) -> Iterator[str]:
    reported, num_bytes, rest = 0, 0, b""
    for number, line in enumerate(iter(lambda: file.readline(max_bytes), b""), 1):
        if number % 1024 == 0:
            position = raw.tell()
            advance(position - reported)
            reported = position
        content = rest + line
        rest = b""
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            if len(line) == max_bytes and error.reason == "unexpected end of data":
                rest = content[error.start :]  # a character that max_bytes cut in two
                text = content[: error.start].decode("utf-8")
            else:
                raise DataError(
                    f"{path}: line {number} (byte {num_bytes + error.start}) is not UTF-8; convert the file first, "
                    f"for instance with `iconv -f latin1 -t utf-8`"
                ) from None
        num_bytes += len(content) - len(rest)
        yield text.removeprefix("\ufeff").rstrip("\r\n") if number == 1 else text.rstrip("\r\n")
    advance(raw.tell() - reported)
