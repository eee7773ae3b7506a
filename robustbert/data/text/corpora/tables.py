"""Tables, CSV or TSV: one document a row, its text in the column that the first row names so."""

import csv
from collections.abc import Iterator
from itertools import chain, islice

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora.fields import DEFAULT_FIELD, no_field
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, Reader, ReaderOptions, Record, numbered_lines

_SEPARATORS = ",;|"  # of CSV; a semicolon where a comma is a decimal point
_NUM_LOOKED_AT = 200  # rows, for whether quotes are quotes


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
    column = names.index(field)
    # A quote that is opened and never closed would swallow rows: `strict`, and as many columns as the first row has.
    csv.field_size_limit(MAX_RECORD_BYTES)
    first = list(islice(lines, _NUM_LOOKED_AT))
    quoting = csv.QUOTE_NONE if separator == "\t" and not _is_quoted(first, len(names)) else csv.QUOTE_MINIMAL
    rows = csv.reader(chain(first, lines), delimiter=separator, quoting=quoting, strict=True)
    num_rows = 1
    while True:
        num_rows += 1
        place, error = f"{file.path}: row {num_rows}", None
        try:
            row = next(rows, None)
        except csv.Error as caught:
            error = caught
        yield from lines.take_bad_input()
        if error is not None:
            yield BadInput(f"{place} is no row of a table ({error}; a quote that does not close?); mend or drop it")
        elif row is None:
            return
        elif len(row) == len(names):
            yield Record(row[column], place)
        elif row:
            yield BadInput(f"{place} has {len(row)} columns, the first row has {len(names)}; mend or drop it")


def _is_quoted(lines: list[str], num_columns: int) -> bool:
    """Whether the rows of a TSV can be read with quotes: some programs write them, for others they are characters."""
    try:
        return all(len(row) in (0, num_columns) for row in csv.reader(lines, delimiter="\t", strict=True))
    except csv.Error as error:
        # The last of these lines may lie within a quoted text.
        return "unexpected end" in str(error) and any(line.count("\t") + 1 != num_columns for line in lines)


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
