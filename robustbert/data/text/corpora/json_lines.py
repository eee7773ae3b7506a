"""JSON lines: one document a line, its text in one field."""

import json
from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora.fields import text_of
from robustbert.data.text.records import BadInput, Reader, ReaderOptions, Record, numbered_lines


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every line that is not blank; whether the last one has a line end does not matter."""
    for number, line in numbered_lines(file):
        if type(line) is BadInput:
            yield line
        elif line and not line.isspace():
            yield Record(line, f"{file.path}: line {number}")


def extract(record: Record, options: ReaderOptions) -> str | BadInput:
    """The text of the line."""
    try:
        document = json.loads(record.content)
    except (ValueError, RecursionError) as error:
        return BadInput(f"{record.place} is not JSON ({error}); mend or drop the line")
    if isinstance(document, str):
        return BadInput(f"{record.place} is a string, not an object with the text in a field; mend or drop the line")
    return text_of(document, options, record.place)


READER = Reader(records, extract, (".jsonl", ".ndjson"))
