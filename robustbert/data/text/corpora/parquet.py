"""Parquet files, one document a row, its text in one column."""

from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile, import_for
from robustbert.data.text.corpora.fields import DEFAULT_FIELD, no_field
from robustbert.data.text.records import BadInput, Reader, ReaderOptions, Record

_ROWS_AT_ONCE = 256
_BUFFER_BYTES = 1 << 20  # a column is read in parts of this size, not a row group at a time


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every row; a row without text is bad input."""
    parquet = import_for("pyarrow.parquet", "a .parquet file")
    arrow = import_for("pyarrow", "a .parquet file")
    number = 0
    try:
        with parquet.ParquetFile(
            file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True
        ) as table:
            field = options.text_field or DEFAULT_FIELD
            names = [table.schema.column(i).path for i in range(len(table.schema.names))]  # those inside of others as `a.b`
            if field not in names:
                yield BadInput(no_field(f"{file.path}:", field, names))
                return
            path = [field] if field in table.schema_arrow.names else field.split(".")
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=[field]):
                for text in batch.column(0):
                    number += 1
                    text = _inner(text.as_py(), path[1:])
                    if isinstance(text, str):
                        yield Record(text, f"{file.path}: row {number}")
                    else:
                        yield BadInput(f"{file.path}: row {number} holds no text but {text!r:.40}; drop the row")
    except (arrow.ArrowException, UnicodeDecodeError, OSError) as error:  # OSError: of a checksum, without a number
        what = str(error).partition("\n")[0]
        yield BadInput(f"{file.path}: damaged or no parquet after row {number} ({what}); copy or download it again")


def extract(record: Record, options: ReaderOptions) -> str:
    """The row's text."""
    return record.content


def _inner(value, path: list[str]):
    """What lies at a path inside a value; None where an outer one is missing."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


READER = Reader(records, extract, (".parquet",))
