"""Plain text: paragraphs parted by blank lines, and documents parted as one of LAYOUTS says and by the end of the file."""

import re
from collections.abc import Iterable, Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.records import BadInput, Piece, Reader, ReaderOptions, Record, Remark, cut, lines_of, paragraphs_of

# What parts documents, and how it is told to a person.
LAYOUTS = {
    "two-blank-lines": "two blank lines part documents",
    "blank-line": "one blank line parts documents",  # BERT, fairseq, CC-100
    "line": "every line is a document",
    "endoftext": "a line `<|endoftext|>` parts documents",  # GPT-2's own dumps, TinyStories
    "wikitext": "a title, ` = Title = `, begins a document",  # WikiText-2 and -103
}
END_OF_TEXT = "<|endoftext|>"
_TITLE = re.compile(r"= (?!= ).*\S(?<! =) =")
# From here on a file of a single document is worth a remark.
_MANY_PARAGRAPHS = 16
_MANY_CHARS = 1_000_000
_MANY_LINES, _MIN_ENDED = 32, 0.7  # lines that are whole sentences; of hard-wrapped prose a tenth ends with one, of verse a quarter
_ENDS, _CLOSING = tuple(".!?…。！？"), "\"'”’»)]"


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | Remark]:
    """Every piece is a record: a document of any length comes in bounded memory."""
    layout = options.documents or "two-blank-lines"
    lines = _CountedLines(lines_of(file))
    paragraphs = _Counted(paragraphs_of(lines if layout == "two-blank-lines" else _in_two_blank_lines(lines, layout)))
    for item in cut(paragraphs, piece_chars):
        yield Record(item.text, str(file.path), item.starts_document) if type(item) is Piece else item
    is_long = paragraphs.count >= _MANY_PARAGRAPHS or paragraphs.num_chars >= _MANY_CHARS
    if paragraphs.num_breaks == 0 and (is_long or lines.are_sentences):
        parts = f"{paragraphs.count:,} paragraphs" if paragraphs.count > 1 else f"{lines.count:,} lines"
        yield Remark(
            f"{file.path}: is one document of {parts} ({LAYOUTS[layout]}, and none do here); if one "
            "blank line parts its documents: --documents blank-line, if every line is one: line (in a run: the key `documents`)"
        )


def is_title(line: str) -> bool:
    """Whether a line is the title of an article in WikiText (` = Title = `); a section's has more marks (` = = Name = = `)."""
    return bool(_TITLE.fullmatch(line.strip()))


def ends_a_sentence(line: str) -> bool:
    """Whether a line ends where a sentence does."""
    return line.rstrip().rstrip(_CLOSING).endswith(_ENDS)


def _in_two_blank_lines(lines: Iterable, layout: str) -> Iterator[str | BadInput]:
    """The lines with two blank ones between documents, and nowhere else."""
    after_blank = True
    for line in lines:
        if type(line) is BadInput:
            yield line
        elif layout == "line":
            yield from (line, "", "")
        elif layout == "endoftext" and line.strip() == END_OF_TEXT:
            yield from ("", "")
            after_blank = True
        elif not line or line.isspace():
            if layout == "blank-line":
                yield from ("", "")
            elif not after_blank:
                yield ""
            after_blank = True
        else:
            if layout == "wikitext" and after_blank and is_title(line):
                yield from ("", "")
            after_blank = False
            yield line


class _CountedLines:
    """Lines as they pass: how many are not blank, and how many of those end with a sentence."""

    def __init__(self, lines: Iterable):
        self._lines = lines
        self.count = self._ended = 0

    @property
    def are_sentences(self) -> bool:
        return self.count >= _MANY_LINES and self._ended >= _MIN_ENDED * self.count

    def __iter__(self) -> Iterator:
        for line in self._lines:
            if type(line) is str and line and not line.isspace():
                self.count += 1
                self._ended += ends_a_sentence(line)
            yield line


class _Counted:
    """Paragraphs as they pass: their number, their characters, and how often a document ended between two of them."""

    def __init__(self, paragraphs: Iterator):
        self._paragraphs = paragraphs
        self.count = self.num_chars = self.num_breaks = 0

    def __iter__(self) -> Iterator:
        for paragraph in self._paragraphs:
            if paragraph is None:
                self.num_breaks += 1
            elif type(paragraph) is str:
                self.count += 1
                self.num_chars += len(paragraph)
            yield paragraph


READER = Reader(records)
