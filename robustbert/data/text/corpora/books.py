"""Books: one file a book, plain text; what Project Gutenberg puts around a book is left out where it is marked."""

import re
from collections.abc import Iterator
from itertools import chain

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.records import BadInput, Piece, Reader, ReaderOptions, Record, cut, lines_of, paragraphs_of

_START = re.compile(r"\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG", re.IGNORECASE)
_END = re.compile(r"\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG|^End of (?:the )?Project Gutenberg", re.IGNORECASE)
_MAX_HEADER_LINES = 1000


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """The pieces of one book; blank lines, however many, only end its paragraphs."""
    paragraphs = (p for p in paragraphs_of(_body(lines_of(file))) if p is not None)
    for item in cut(paragraphs, piece_chars):
        yield Record(item.text, str(file.path), item.starts_document) if type(item) is Piece else item


def _body(lines: Iterator[str | BadInput]) -> Iterator[str | BadInput]:
    """The lines between Project Gutenberg's header and its licence; all of them where it has marked neither."""
    head = []
    for line in lines:
        head.append(line)
        if type(line) is str and _START.search(line):
            # The mark may go on for some lines; it ends with three asterisks.
            while type(line) is str and not line.rstrip().endswith("***") and line.strip():
                line = next(lines, "")
            head = [item for item in head if type(item) is BadInput]
            break
        if len(head) == _MAX_HEADER_LINES:
            break
    for line in chain(head, lines):
        if type(line) is str and _END.search(line):
            break
        yield line
    yield from (line for line in lines if type(line) is BadInput)  # nothing is passed over in silence


READER = Reader(records, endings=(".txt",))
