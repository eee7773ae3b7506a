"""JSON lines: one document a line, in the field `text`."""

import json
from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.records import BadInput, Reader, ReaderOptions, Record, numbered_lines


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """Every line that is not blank."""
    for number, line in numbered_lines(file):
        if type(line) is BadInput:
            yield line
        elif line and not line.isspace():
            yield Record(line, f"{file.path}: line {number}")


def extract(record: Record, options: ReaderOptions) -> str | BadInput:
    """The line's field `text`."""
    try:
        document = json.loads(record.content)
    except (ValueError, RecursionError) as error:
        return BadInput(f"{record.place} is not JSON ({error}); mend or drop the line")
    text = document.get("text") if isinstance(document, dict) else None
    if not isinstance(text, str):
        return BadInput(f"{record.place} has no text in a field `text`; name the field so, or use another reader")
    # Lone surrogates ("\ud800") are legal in JSON and cannot be encoded.
    return text.encode("utf-8", "replace").decode("utf-8")


READER = Reader(records, extract, (".jsonl", ".ndjson"))
