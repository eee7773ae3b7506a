"""GLUE's files of tab-separated columns, as published: no quoting, UTF-8, perhaps a byte order mark, each line ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.json_lines import say_error

_MAX_DAMAGED_SHARE = 0.001  # of lines that a file may be published with; QQP has a few


@dataclass(frozen=True)
class Row:
    """One line: the wanted columns by name, and where it stands."""

    path: Path
    line: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def error(self, problem: str) -> DataError:
        """A DataError about this line."""
        return DataError(f"{self.path}, line {self.line}: {problem}")


def read_rows(
    path: Path, wanted: Sequence[str], header: Sequence[str] | None = None, damaged_lines: bool = False
) -> list[Row]:
    """The rows of a file with the wanted columns.

    header: the columns of a file that has no line for them. damaged_lines: the published file has some lines with too few
    columns; they are left out as everywhere in the literature, up to a thousandth, and a line on standard error says so.
    DataError with file and line: a column is missing, a line has too few or too many, the file ends within a line, not UTF-8.
    """
    lines = _lines(path)
    if header is None:
        first = next(lines, None)
        if first is None:
            raise DataError(f"{path}: is empty; download it again")
        header = first[1].split("\t")
    missing = [column for column in wanted if column not in header]
    if missing:
        there = ", ".join(map(repr, header))
        raise DataError(f"{path}, line 1: has no column {missing[0]!r}, but {there}; is it the official file?")
    places = [(column, header.index(column)) for column in wanted]
    rows, damaged = [], []
    for number, text in lines:
        cells = text.split("\t")
        if len(cells) == len(header):
            rows.append(Row(path, number, {column: cells[place] for column, place in places}))
        else:
            damaged.append((number, len(cells)))
    if damaged and (not damaged_lines or len(damaged) > max(1, _MAX_DAMAGED_SHARE * (len(rows) + len(damaged)))):
        number, count = damaged[0]
        raise DataError(f"{path}, line {number}: has {count} columns instead of {len(header)}; it is damaged, download it again")
    if not rows:
        raise DataError(f"{path}: has no examples; download it again")
    if damaged:
        say_error(f"{path}: {len(damaged)} of {len(rows) + len(damaged)} lines are damaged and left out, the first is line {damaged[0][0]}")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Every line with its number; only a line feed ends one: other separators may stand inside a sentence."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                raise DataError(f"{path}, line {number}: the file ends within this line; it is cut short, download it again")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                where = f"{error.reason} at byte {error.start}"
                raise DataError(f"{path}, line {number}: not UTF-8 ({where}); download it again") from None
            yield number, text[:-1].removesuffix("\r")
