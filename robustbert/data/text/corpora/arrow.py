"""Data sets that Hugging Face `datasets` saved (save_to_disk): .arrow files, one document a row, its text in one column."""

from collections.abc import Iterator
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import InputFile, import_for
from robustbert.data.text.corpora.fields import DEFAULT_FIELD, no_field
from robustbert.data.text.records import BadInput, Reader, ReaderOptions, Record


def is_saved(folder: Path) -> bool:
    """Whether a folder is one saved data set. DataError: it has several splits; held-out text is not to be trained on."""
    if (folder / "dataset_dict.json").is_file():
        raise DataError(f"{folder}: a saved data set of several splits; name the folder of one, for instance {folder}/train")
    return (folder / "state.json").is_file()


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every row, a record batch at a time; a row without text is bad input."""
    arrow = import_for("pyarrow", "an .arrow file")
    import pyarrow.ipc

    number = 0
    try:
        with pyarrow.ipc.open_stream(arrow.memory_map(str(file.path))) as stream:
            field, names = options.text_field or DEFAULT_FIELD, stream.schema.names
            if field not in names:
                tokenised = f"{file.path}: holds input_ids and no text; name its folder as `path`, not `text`"
                yield BadInput(tokenised if "input_ids" in names else no_field(f"{file.path}:", field, names))
                return
            for batch in stream:
                for text in batch.column(field):
                    number += 1
                    text = text.as_py()
                    if isinstance(text, str):
                        yield Record(text, f"{file.path}: row {number}")
                    else:
                        yield BadInput(f"{file.path}: row {number} holds no text but {text!r:.40}; drop the row")
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        what = str(error).partition("\n")[0]
        yield BadInput(f"{file.path}: damaged or no stream of record batches after row {number} ({what}); copy or save it again")


def extract(record: Record, options: ReaderOptions) -> str:
    """The row's text."""
    return record.content


READER = Reader(records, extract, (".arrow",))
