"""Tables of task files: the columns that are wanted, by name, from GLUE's .tsv and from what pandas and Hugging Face's
datasets make of them (.tsv with quotation marks, .csv, .jsonl, .parquet)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import import_for
from robustbert.finetune.tasks.cells import is_quoted, num_like_quoted, quoted_lines, raw_lines
from robustbert.finetune.tasks.json_data import load_json, load_json_lines
from robustbert.finetune.tasks.text_file import read_text
from robustbert.json_lines import say_error

ENDINGS = (".tsv", ".csv", ".jsonl", ".json", ".parquet")
_SEPARATORS = {".tsv": "\t", ".csv": ","}
_MAX_DAMAGED_SHARE = 0.001  # of lines that a file may be published with; QQP has a few


@dataclass(frozen=True)
class Row:
    """One row: the wanted columns by name, without white space around them, and where it stands.

    fairseq's BPE encoder strips every text as well (examples/roberta/multiprocessing_bpe_encoder.py). It matters: SST-2 is
    published with a space after every sentence for training and development, and after none of the test set.
    """

    path: Path
    place: str
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str | None:
        """A column that may be absent."""
        return self.values.get(column)

    def error(self, problem: str) -> DataError:
        """A DataError about this row."""
        return DataError(f"{self.path}, {self.place}: {problem}")


@dataclass(frozen=True)
class Columns:
    """Which columns of a file are wanted: by the first of its names a column is known in a Row.

    header: of a file that has no line for it. damaged_lines: the published file has some lines with too few columns; they are
    left out as everywhere in the literature, up to a thousandth, and a line on standard error says so.
    """

    wanted: Sequence[Sequence[str]]
    optional: Sequence[Sequence[str]] = ()
    header: Sequence[str] | None = None
    damaged_lines: bool = False


def read_rows(path: Path, columns: Columns) -> list[Row]:
    """The rows of a file with the wanted columns.

    DataError with file and line: a column is missing, a line has too few or too many, not UTF-8. FileNotFoundError.
    """
    if path.suffix in _SEPARATORS:
        rows = _rows_of_lines(path, columns, _SEPARATORS[path.suffix])
    else:
        rows = _rows_of_records(path, columns)
    if not rows:
        raise DataError(f"{path}: has no examples; download it again")
    return rows


def _rows_of_lines(path: Path, columns: Columns, separator: str) -> list[Row]:
    text = read_text(path)
    lines = _lines(path, text, separator)
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: is empty; download it again")
    header = list(columns.header or ())
    if columns.header is None or _has_all(first[1], columns):
        header, first = first[1], None
    places = _places(path, header, columns, separator)
    rows, damaged = [], []
    for number, cells in (*([first] if first else ()), *lines):
        if len(cells) == len(header):
            rows.append(Row(path, f"line {number}", {name: cells[place].strip() for name, place in places.items()}))
        else:
            damaged.append((number, len(cells)))
    if damaged and (not columns.damaged_lines or len(damaged) > max(1, _MAX_DAMAGED_SHARE * (len(rows) + len(damaged)))):
        number, count = damaged[0]
        raise DataError(f"{path}, line {number}: has {count} columns instead of {len(header)}; it is damaged, download it again")
    if damaged:
        say_error(f"{path}: {len(damaged)} of {len(rows) + len(damaged)} lines are damaged and left out, the first is line {damaged[0][0]}")
    if rows and not text.endswith("\n"):
        say_error(f"{path}: has no line end after its last line ({rows[-1].place}); it is taken as whole")
    return rows


def _lines(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    if separator == "," or is_quoted(text, separator):
        return quoted_lines(text, separator, path)
    alike, count = num_like_quoted(text, separator)
    if alike > count / 2:
        say_error(
            f"{path}: {alike} of {count} cells with quotation marks look as if pandas had quoted them, the others do not; "
            "all are taken as GLUE's, with the marks as text"
        )
    return raw_lines(text, separator)


def _rows_of_records(path: Path, columns: Columns) -> list[Row]:
    """From JSON lines or Parquet. A missing value is an empty text."""
    rows, places, header = [], None, None
    for place, record in _records(path):
        if not isinstance(record, dict):
            raise DataError(f"{path}, {place}: is no object with columns, but {str(record)[:40]!r}")
        if header != record.keys():
            header = record.keys()
            places = _places(path, list(header), columns)
        names = list(record)
        values = {name: _text_of(record[names[index]]) for name, index in places.items()}
        if stray := next((name for name, value in values.items() if value is None), None):
            raise DataError(f"{path}, {place}: `{stray}` is {str(record[names[places[stray]]])[:40]!r}, it should be a text or a number")
        rows.append(Row(path, place, values))
    return rows


def _records(path: Path) -> Iterator[tuple[str, object]]:
    if path.suffix != ".parquet":
        if path.suffix == ".json" and read_text(path).lstrip().startswith("["):
            yield from ((f"item {i}", record) for i, record in enumerate(load_json(path)))
            return
        for place, record in load_json_lines(path):
            yield place.removeprefix(f"{path}, "), record
        return
    if not path.exists():
        raise FileNotFoundError(path)
    parquet = import_for("pyarrow.parquet", "a .parquet file")
    try:
        for number, record in enumerate(parquet.read_table(path).to_pylist(), 1):
            yield f"row {number}", record
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{path}: damaged or no parquet ({' '.join(str(error).split())[:200]}); copy or download it again") from None


def _text_of(value) -> str | None:
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    return None if isinstance(value, list | dict) else str(int(value) if isinstance(value, bool) else value)


def _places(path: Path, header: list[str], columns: Columns, separator: str = "") -> dict[str, int]:
    """Where each wanted column stands; by the first of its names."""
    plain = [name.strip().casefold() for name in header]
    places = {}
    for names in (*columns.wanted, *columns.optional):
        found = next((name for name in names if name.casefold() in plain), None)
        if found is not None:
            if plain.count(found.casefold()) > 1:
                raise DataError(f"{path}: has the column {found!r} twice; which one? rename the other")
            places[names[0]] = plain.index(found.casefold())
        elif names in columns.wanted:
            there = ", ".join(map(repr, header))
            hint = "is it the official file?"
            other = next((s for s in ",;\t" if s != separator and len(header) == 1 and s in header[0]), None)
            if separator and other:
                hint = f"columns are parted by {other!r} there: a .csv has commas, a .tsv tabs"
            raise DataError(f"{path}, line 1: has no column {names[0]!r}, but {there[:300]}; {hint}")
    return places


def _has_all(header: list[str], columns: Columns) -> bool:
    """Whether a line is a header with all wanted columns."""
    plain = {name.strip().casefold() for name in header}
    return all(any(name.casefold() in plain for name in names) for names in columns.wanted)
