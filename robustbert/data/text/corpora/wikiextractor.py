"""WikiExtractor's output: articles between `<doc id=... title="...">` and `</doc>`, or with --json one article a line.

As WikiExtractor 3.0.6 writes it: a line is a paragraph; what HTML reserves is escaped (`&amp;`, `&lt;`) in the title and
in the text, in JSON too; a heading is a paragraph of its own with a full stop added. Between `<doc>` and `</doc>` the title
stands in the first line once more: it is left out.
"""

import html
import json
import re
from collections.abc import Iterator

from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.records import MAX_RECORD_BYTES, BadInput, LeftOut, Reader, ReaderOptions, Record, numbered_lines

START = re.compile(r'<doc id="[^"]*".*?(?: title="(?P<title>.*?)")?(?: language="[^"]*" revision="[^"]*")?>')
_END = "</doc>"
JSON_FIELDS = ["id", "revid", "url", "title", "text"]


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | LeftOut]:
    """The lines of every article."""
    begun, title, lines, size = 0, "", [], 0  # begun: the line where the article begins, 0 between two of them
    for number, line in numbered_lines(file):
        if type(line) is BadInput:
            yield line
        elif line.startswith("{") and not begun:
            yield _article_of_json(line, f"{file.path}: line {number}")
        elif start := START.fullmatch(line.rstrip()):
            if begun:
                yield BadInput(f"{file.path}: the article of line {begun} does not end before line {number}; drop it")
            begun, title, lines, size = number, start["title"], [], 0
        elif line.rstrip() == _END and begun:
            yield _article(lines, title, f"{file.path}: the article of line {begun}")
            begun = 0
        elif begun:
            lines.append(line)
            size += len(line)
            if size > MAX_RECORD_BYTES:
                yield BadInput(f"{file.path}: the article of line {begun} has more than {MAX_RECORD_BYTES} characters; drop it")
                begun = 0
        elif line.strip():
            yield BadInput(f"{file.path}: line {number} stands outside of an article (<doc ...> to </doc>); drop it")
    if begun:
        yield BadInput(f"{file.path}: is cut off within the article of line {begun}; copy or make it again")


def extract(record: Record, options: ReaderOptions) -> str:
    """The article's paragraphs."""
    return html.unescape(record.content)


def _article_of_json(line: str, place: str) -> Record | LeftOut | BadInput:
    try:
        text = json.loads(line)["text"]
        return _article(text.split("\n"), None, place)
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        return BadInput(f"{place} is no article as WikiExtractor writes it ({error!r:.80}); mend or drop the line")


def _article(lines: list[str], title: str | None, place: str) -> Record | LeftOut:
    paragraphs = [line.strip() for line in lines if line.strip()]
    if paragraphs and paragraphs[0] == title:
        paragraphs = paragraphs[1:]
    return Record("\n\n".join(paragraphs), place) if paragraphs else LeftOut("articles without running text")


READER = Reader(records, extract)
