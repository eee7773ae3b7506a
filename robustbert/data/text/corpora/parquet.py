"""Parquet files with a column `text`, one document a row."""

from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile, import_for
from robustbert.data.text.records import BadInput, Reader, ReaderOptions, Record

_ROWS_AT_ONCE = 256
_BUFFER_BYTES = 1 << 20  # a column is read in parts of this size, not a row group at a time


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every row; a row without text is bad input."""
    parquet = import_for("pyarrow.parquet", "a .parquet file")
    arrow = import_for("pyarrow", "a .parquet file")
    number = 0
    try:
        with parquet.ParquetFile(file.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as table:
            if "text" not in table.schema_arrow.names:
                names = ", ".join(table.schema_arrow.names)
                yield BadInput(f"{file.path}: has no column `text` (its columns: {names}); name the column so")
                return
            for batch in table.iter_batches(_ROWS_AT_ONCE, columns=["text"]):
                for text in batch.column(0):
                    number += 1
                    text = text.as_py()
                    if isinstance(text, str):
                        yield Record(text, f"{file.path}: row {number}")
                    else:
                        yield BadInput(f"{file.path}: row {number} holds no text but {text!r:.40}; drop the row")
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        what = str(error).partition("\n")[0]
        yield BadInput(f"{file.path}: damaged or no parquet after row {number} ({what}); copy or download it again")


def extract(record: Record, options: ReaderOptions) -> str:
    """The row's text."""
    return record.content


READER = Reader(records, extract, (".parquet",))
