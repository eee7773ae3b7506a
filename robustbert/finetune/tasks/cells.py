"""Text files of columns in two dialects: GLUE's, where a quotation mark is text, and that of pandas and spreadsheets.

In the second (csv.QUOTE_MINIMAL of Python's csv module, pandas' default) a cell that holds the separator, a line end or a quotation
mark stands in quotation marks, and those inside are doubled. Nothing in a file says which it is; is_quoted() tells from the cells.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from robustbert.data.errors import DataError

_NUMBER = re.compile(r"-?[\d.]*")


def raw_lines(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line, its cells) of GLUE's dialect; only a line feed ends a line, other separators may stand inside a
    sentence. Empty lines are left out."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if line:
            yield number, line.split(separator)


def quoted_lines(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the record's first line, its cells) of the dialect with quotation marks. Empty lines are left out.

    DataError where a quotation mark is opened and not closed before a separator or a line end.
    """
    position, line, start, cells = 0, 1, 1, []
    cell = _cell(separator)
    while position < len(text):
        match = cell.match(text, position)
        if match is None:
            raise DataError(f"{path}, line {line}: a quotation mark is opened and not closed at the end of a cell; mend the line")
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        line += match[0].count("\n")
        position = match.end()
        if end != separator or position == len(text):
            if end == separator:
                cells.append("")
            if cells != [""]:
                yield start, cells
            cells, start = [], line


def is_quoted(text: str, separator: str) -> bool:
    """Whether the quotation marks of a file are those of pandas and of spreadsheets, and not part of the text.

    They are if every cell that has one stands in them as a whole, with those inside doubled, and every one of these cells needs
    it: it holds a quotation mark, a separator or a line end. Where cells stand in them without need (`"Hello."`), that is text,
    unless all cells but numbers do, as with csv.QUOTE_ALL and QUOTE_NONNUMERIC.
    """
    if '"' not in text:
        return False
    position, all_needed, all_quoted = 0, True, True
    cell = _strict_cell(separator)
    while position < len(text):
        match = cell.match(text, position)
        if match is None:
            return False
        quoted, plain, _ = match.groups()
        if quoted is None:
            all_quoted = all_quoted and bool(_NUMBER.fullmatch(plain))
        else:
            all_needed = all_needed and any(mark in quoted for mark in ('"', separator, "\n", "\r"))
        if not (all_needed or all_quoted):
            return False
        position = match.end()
    return True


def num_like_quoted(text: str, separator: str) -> tuple[int, int]:
    """How many cells with a quotation mark look like those of pandas, with doubled ones inside, and how many there are in all."""
    with_marks = [cell for line in text.split("\n") if '"' in line for cell in line.removesuffix("\r").split(separator) if '"' in cell]
    alike = re.compile(r'"[^"]*(?:""[^"]*)+"')
    return sum(bool(alike.fullmatch(cell)) for cell in with_marks), len(with_marks)


@lru_cache
def _cell(separator: str) -> re.Pattern:
    """A cell with what ends it; a quotation mark within an unquoted one is text, as for Python's csv."""
    return re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|((?:[^"{separator}\n][^{separator}\n]*?)?))({separator}|\r?\n|\Z)')


@lru_cache
def _strict_cell(separator: str) -> re.Pattern:
    return re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{separator}\n]*?))({separator}|\r?\n|\Z)')
