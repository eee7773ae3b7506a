"""Plain text: a blank line ends a paragraph, two or more a document, as does the end of the file."""

from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.records import BadInput, Piece, Reader, ReaderOptions, Record, cut, lines_of, paragraphs_of


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every piece is a record: a document of any length comes in bounded memory."""
    for item in cut(paragraphs_of(lines_of(file)), piece_chars):
        yield Record(item.text, str(file.path), item.starts_document) if type(item) is Piece else item


READER = Reader(records)
