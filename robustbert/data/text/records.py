"""What readers are made of: records, pieces of documents, input that cannot be used; and text as lines and paragraphs.

A reader has two halves. `records` runs in the main process, once over each file: it finds where documents lie and does
nothing that takes long. `extract` runs in the workers: it makes text of one record (parses HTML, removes markup).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.encodings import way_to_utf8

# A longer document comes in pieces of about this many characters, cut at the end of a paragraph.
MAX_PIECE_CHARS = 1 << 16
# A paragraph (a file without blank lines, a line without end) is cut here, at the end of a line where there is one.
_MAX_PARAGRAPH_CHARS = 1 << 18
# A line, a record or a file inside an archive of more bytes is no text of a person: it is bad input.
MAX_RECORD_BYTES = 1 << 25


class Piece(NamedTuple):
    """A document, or a part of a long one: paragraphs, with a blank line between them."""

    text: str
    starts_document: bool


class Record(NamedTuple):
    """A document as it lies in its file, or a piece of one; place names it to a person.

    kind: for a reader that takes several kinds of file, which one this comes from; or what a file says of all its records.
    reader: of a source whose files have several readers, the one of this file.
    """

    content: str | bytes
    place: str
    starts_document: bool = True
    kind: str = ""
    reader: str = ""


class BadInput(NamedTuple):
    """A part of the input that cannot be used; the message names the file, the place in it, and the way out."""

    message: str


class LeftOut(NamedTuple):
    """A record that is whole and not wanted; the reason is counted in the manifest."""

    reason: str


class Lacking(NamedTuple):
    """What a document's text lacks: in how many sentences words are missing, and the names of what stood for them."""

    num_sentences: int
    names: tuple[str, ...]


class Incomplete(NamedTuple):
    """The text of a record, and what it lacks."""

    text: str
    lacking: Lacking


class Remark(NamedTuple):
    """Something about a file that was taken and that its owner should know; told once and kept in the manifest."""

    message: str


@dataclass(frozen=True)
class ReaderOptions:
    """What some readers let the user choose.

    documents (plain): what parts documents, one of plain.LAYOUTS; None: two blank lines. text_field (JSON, tables,
    Parquet): the field with the text, `a.b` for one inside another; None: `text`.
    first_date, last_date (cc-news): ISO dates, both included. queries_file (stories): the questions; share: of the
    documents, the most similar ones, kept; threshold: the similarity from which a document is kept instead.
    """

    first_date: str | None = None
    last_date: str | None = None
    queries_file: str | None = None
    share: float | None = None
    threshold: float | None = None
    documents: str | None = None
    text_field: str | None = None

    def chosen(self) -> dict:
        """The options that are not left at their default."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Reader:
    """How files of one kind are read.

    records(file, options, piece_chars): the file's records in order, with BadInput where something cannot be read.
    extract(record, options): the record's text (also with what it lacks), or BadInput, or LeftOut; None where a record is a
    piece of text already.
    endings: of the files of a folder that belong to it; none: a folder is not taken.
    """

    records: Callable[[InputFile, ReaderOptions, int], Iterator[Record | BadInput | LeftOut | Remark]]
    extract: Callable[[Record, ReaderOptions], str | Incomplete | BadInput | LeftOut] | None = None
    endings: tuple[str, ...] = ()


def cut(paragraphs: Iterable, piece_chars: int) -> Iterator:
    """Join paragraphs into pieces; None ends a document, BadInput passes through."""
    parts, size, starts_document = [], 0, True
    for paragraph in paragraphs:
        if type(paragraph) is BadInput:
            yield paragraph
            continue
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


def paragraphs_of(lines: Iterable) -> Iterator:
    """Paragraphs of the lines; None where two or more blank lines stand; BadInput passes through."""
    parts, size, num_blank = [], 0, 0
    for line in lines:
        if type(line) is BadInput:
            yield line
            continue
        if line and not line.isspace():
            if num_blank >= 2:
                yield None
            num_blank = 0
            for start in range(0, len(line), _MAX_PARAGRAPH_CHARS):
                parts.append(line[start : start + _MAX_PARAGRAPH_CHARS] if start or len(line) > _MAX_PARAGRAPH_CHARS else line)
                size += len(parts[-1])
                if size >= _MAX_PARAGRAPH_CHARS:
                    yield "\n".join(parts)
                    parts, size = [], 0
            continue
        num_blank += 1
        if parts:
            yield "\n".join(parts)
            parts, size = [], 0
    if parts:
        yield "\n".join(parts)


def pieces_of_text(text: str, piece_chars: int) -> Iterator[Piece]:
    """The pieces of one document: blank lines, however many, only end paragraphs."""
    return cut((p for p in paragraphs_of(text.splitlines()) if p), piece_chars)


def numbered_lines(file: InputFile) -> Iterator[tuple[int, str | BadInput]]:
    """The lines of a file without their ends, numbered from 1; BadInput for one that is not UTF-8 or far too long."""
    num_bytes = 0
    number = 0
    while line := file.readline(MAX_RECORD_BYTES):
        number += 1
        start = num_bytes
        num_bytes += len(line)
        if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
            line = b""
            while rest := file.readline(MAX_RECORD_BYTES):
                num_bytes += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, BadInput(
                f"{file.path}: line {number} (byte {start}) has {num_bytes - start} bytes, a line has at most "
                f"{MAX_RECORD_BYTES}; is this text? break it, for instance with `fold -s -w 1000`"
            )
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            yield number, BadInput(
                f"{file.path}: line {number} (byte {start + error.start}) is not UTF-8; {way_to_utf8(line)}"
            )
            continue
        # A byte order mark is no text: at the start of a file, and of each of the files that one was put together from.
        yield number, text.removeprefix("\ufeff").rstrip("\r\n")


def lines_of(file: InputFile) -> Iterator[str | BadInput]:
    """The lines of a file without their ends."""
    return (line for _, line in numbered_lines(file))
