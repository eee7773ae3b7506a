"""JSON that is not one document a line: an array of documents, or objects one after another over several lines."""

import codecs
import json
import re
from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora.fields import text_of
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, Reader, ReaderOptions, Record

_READ_BYTES = 1 << 18
_WHITE_SPACE = re.compile(r"[ \t\r\n]*")


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput]:
    """The text of every document, one in memory at a time."""
    number = 0
    for value in _values(file):
        if type(value) is BadInput:
            yield value
            return
        number += 1
        place = f"{file.path}: document {number}"
        text = text_of(value, options, place)
        yield Record(text, place) if type(text) is str else text


def extract(record: Record, options: ReaderOptions) -> str:
    """The document's text."""
    return record.content


class _Text:
    """The characters of a file that are not taken yet."""

    def __init__(self, file: InputFile):
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8")()
        self.content, self.at, self.is_whole = "", 0, False
        self.more(_READ_BYTES)
        self.content = self.content.removeprefix("\ufeff")

    def more(self, num_bytes: int) -> None:
        """Read on, and forget what was taken. UnicodeDecodeError."""
        content = self._file.read(num_bytes)
        self.is_whole = not content
        self.content = self.content[self.at :] + self._decoder.decode(content, final=self.is_whole)
        self.at = 0

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self.at = _WHITE_SPACE.match(self.content, self.at).end()
            if self.at < len(self.content) or self.is_whole:
                return self.content[self.at : self.at + 1]
            self.more(_READ_BYTES)


def _values(file: InputFile) -> Iterator[object | BadInput]:
    """The elements of a file's array, or its values one after another; BadInput, and the end, where that is broken."""
    number = 0
    try:
        text = _Text(file)
        is_array = text.peek() == "["
        text.at += is_array
        while character := text.peek():
            if is_array and character == "]":
                text.at += 1
                if text.peek():
                    yield BadInput(f"{file.path}: something follows the JSON array of {number} documents; drop it")
                return
            if is_array and number:
                if character != ",":
                    yield BadInput(f"{file.path}: no comma after document {number} of its JSON array; mend the file")
                    return
                text.at += 1
                text.peek()
            value = _next_value(text)
            if isinstance(value, json.JSONDecodeError):
                what = "is not JSON, or cut off" if text.is_whole else f"is not JSON, or longer than {MAX_RECORD_BYTES} bytes"
                yield BadInput(f"{file.path}: what follows its document {number} {what} ({value.msg}); what lies behind it is not read; mend the file")
                return
            number += 1
            yield value
        if is_array:
            yield BadInput(f"{file.path}: is cut off: its JSON array does not end after document {number}; copy it again")
    except UnicodeDecodeError as error:
        yield BadInput(f"{file.path}: is not UTF-8 after document {number} ({error.reason}); convert the file first")
    except RecursionError:
        yield BadInput(f"{file.path}: what follows document {number} is nested too deeply; drop it")


def _next_value(text: _Text):
    """The value that begins here, or the error of a broken or endless one; reads on for as long as it may be cut off."""
    decoder, num_bytes = json.JSONDecoder(), _READ_BYTES
    while True:
        try:
            value, text.at = decoder.raw_decode(text.content, text.at)
            return value
        except json.JSONDecodeError as error:
            if text.is_whole or len(text.content) - text.at > MAX_RECORD_BYTES:
                return error
            text.more(num_bytes)
            num_bytes *= 2


READER = Reader(records, extract, (".json",))
