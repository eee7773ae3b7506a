"""Tables, CSV or TSV: one document a row, its text in the column that the first row names so."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora.fields import DEFAULT_FIELD, no_field
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, Reader, ReaderOptions, Record, numbered_lines

_SEPARATORS = ",;|"  # of CSV; a semicolon where a comma is a decimal point
_MAX_LINES_OF_A_ROW = 100


def csv_records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """The rows of a CSV."""
    yield from _rows(file, options, None)


def tsv_records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """The rows of a TSV."""
    yield from _rows(file, options, "\t")


def extract(record: Record, options: ReaderOptions) -> str:
    """The row's text."""
    return record.content


def columns_of(line: str, separator: str | None = None) -> list[str]:
    """The columns that a table's first line names; without a separator, by the one of _SEPARATORS that gives most."""
    candidates = [next(csv.reader([line], delimiter=s), []) for s in (separator or _SEPARATORS)]
    return [name.strip() for name in max(candidates, key=len)]


def separator_of(line: str) -> str:
    """The separator of a CSV with this first line."""
    return max(_SEPARATORS, key=lambda separator: len(next(csv.reader([line], delimiter=separator), [])))


def _rows(file: InputFile, options: ReaderOptions, separator: str | None) -> Iterator[Record | BadInput]:
    lines = _Lines(file)
    header = next(lines, "")
    separator = separator or separator_of(header)
    names = columns_of(header, separator)
    field = options.text_field or DEFAULT_FIELD
    if field not in names:
        yield from lines.take_bad_input()
        yield BadInput(no_field(f"{file.path}: line 1", field, names))
        return
    column, num_rows = names.index(field), 1
    bare = separator == "\t" and '"' not in header
    for row in _bare_rows(lines, len(names)) if bare else _quoted_rows(lines, separator):
        num_rows += 1
        place = f"{file.path}: row {num_rows}"
        yield from lines.take_bad_input()
        if type(row) is csv.Error:
            yield BadInput(f"{place} is no row of a table ({row}; a quote that does not close?); mend or drop it")
        elif len(row) == len(names):
            yield Record(row[column], place)
        elif any(row):
            yield BadInput(f"{place} has {len(row)} columns, the first row has {len(names)}; mend or drop it")
    yield from lines.take_bad_input()


def _quoted_rows(lines: Iterator[str], separator: str) -> Iterator[list[str] | csv.Error]:
    """The rows of a table whose quotes are quotes, and the error in place of a broken one.

    A quote that is opened and never closed would swallow rows: `strict` tells.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _bare_rows(lines: Iterator[str], num_columns: int) -> Iterator[list[str]]:
    """The rows of a TSV whose first line has no quotes: there quotes are characters of the text, but where they cannot be.

    TSV as IANA registers it has no quotes, and GLUE's files hold bare ones. pandas writes (quoting=csv.QUOTE_MINIMAL) quotes
    around a text that holds a tab, a line end, or a quote, and that one twice.
    """
    ahead: deque[str] = deque()
    while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
        row = line.removesuffix("\n").split("\t")
        is_open = any(value.startswith('"') and value.count('"') % 2 for value in row)
        if is_open and len(row) == num_columns:  # a bare quote, unless the next line is the rest of a text
            ahead.extend([] if ahead else islice(lines, 1))
            is_open = bool(ahead) and ahead[0].count("\t") + 1 != num_columns
        if is_open or len(row) > num_columns:
            ahead.extend(islice(lines, max(0, _MAX_LINES_OF_A_ROW - len(ahead))))
            num_more, whole = _over_lines(line, ahead, num_columns)
            for _ in range(num_more):
                ahead.popleft()
            yield whole or row
        else:
            yield [_without_quotes(value) for value in row]


def _over_lines(line: str, following: Iterable[str], num_columns: int) -> tuple[int, list[str] | None]:
    """The row that begins with a line and ends within the following ones, and how many of those it takes; None: no such."""
    for number, more in enumerate(["", *following]):
        line += more
        try:
            row = next(csv.reader([line], delimiter="\t", strict=True))
        except csv.Error:
            continue
        if len(row) == num_columns:
            return number, row
    return 0, None


def _without_quotes(value: str) -> str:
    """A value without the quotes that were put around it because quotes are in it."""
    if value.startswith('"') and value.endswith('"') and '""' in (inner := value[1:-1]) and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return value


class _Lines:
    """The lines of a file with their ends, for csv; those that cannot be used are kept aside."""

    def __init__(self, file: InputFile):
        self._lines = numbered_lines(file)
        self._bad_input = []

    def take_bad_input(self) -> list[BadInput]:
        """What was kept aside since the last call."""
        taken, self._bad_input = self._bad_input, []
        return taken

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        for _, line in self._lines:
            if type(line) is BadInput:
                self._bad_input.append(line)
            else:
                return line + "\n"
        raise StopIteration


CSV_READER = Reader(csv_records, extract, (".csv",))
TSV_READER = Reader(tsv_records, extract, (".tsv", ".tab"))
