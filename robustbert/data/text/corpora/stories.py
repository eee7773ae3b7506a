"""STORIES: the documents of a web crawl that are most like the questions of a commonsense task (Trinh and Le, 2018).

A document's similarity is the weighted mean of F1(n) over n = 1 .. 4, with weights n; F1(n) compares its n-grams with
those of all questions (as sets, in lower case). The authors kept the top 0.1% of CommonCrawl's documents.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.text.byte_streams import InputFile
from robustbert.data.text.corpora import cc_news, json_lines, plain
from robustbert.data.text.detection import WEB_ARCHIVE, Form, detect
from robustbert.data.text.records import BadInput, LeftOut, Reader, ReaderOptions, Record, lines_of

ORDERS = (1, 2, 3, 4)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ARCHIVES = (".warc", ".wet")
_QUESTION_FIELDS = ("text", "question", "sentence", "premise")
_NUM_BINS = 1 << 20
_READERS = {"archive": cc_news.READER, "lines": json_lines.READER, "plain": plain.READER}


def records(file: InputFile, options: ReaderOptions, piece_chars: int) -> Iterator[Record | BadInput | LeftOut]:
    """The pages of a WARC or WET file, the lines of JSON lines, or the documents of plain text, whatever the file's name."""
    kind = _kind(file.path)
    for item in _READERS[kind].records(file, ReaderOptions(), piece_chars):
        yield item._replace(kind=kind) if type(item) is Record else item


def extract(record: Record, options: ReaderOptions) -> str | BadInput | LeftOut:
    """The record's text; of a web archive English articles only."""
    extract_kind = _READERS[record.kind].extract
    return extract_kind(record, ReaderOptions()) if extract_kind else record.content


class Similarity:
    """How alike texts are to a set of questions."""

    def __init__(self, questions: list[str]):
        self._ngrams = [set() for _ in ORDERS]
        for question in questions:
            words = _words(question)
            for n, ngrams in zip(ORDERS, self._ngrams):
                ngrams |= _ngrams(words, n)

    def __call__(self, text: str) -> float:
        """Between 0 and 1; 0 for a text without words."""
        words = _words(text)
        weighted = 0.0
        for n, of_questions in zip(ORDERS, self._ngrams):
            of_text = _ngrams(words, n)
            if of_text and of_questions:
                weighted += n * 2 * len(of_text & of_questions) / (len(of_text) + len(of_questions))
        return weighted / sum(ORDERS)


class SimilarityCounts:
    """How many documents have which similarity: a histogram fine enough to find a share's threshold, of fixed size."""

    def __init__(self):
        self._counts = np.zeros(_NUM_BINS + 1, np.int64)

    def add(self, similarities: list[float]) -> None:
        """Count some documents."""
        np.add.at(self._counts, (np.asarray(similarities, np.float64) * _NUM_BINS).astype(np.int64), 1)

    def threshold(self, share: float) -> float:
        """The lowest similarity of the `share` of most similar documents; those without any are never among them."""
        wanted = max(1, round(share * int(self._counts.sum())))
        from_the_top = np.cumsum(self._counts[::-1])
        lowest = _NUM_BINS - int(np.searchsorted(from_the_top, wanted))
        return max(lowest, 1) / _NUM_BINS


def read_questions(path: str | Path) -> list[str]:
    """The questions of a .jsonl (its field text, question, sentence or premise) or of a text file, one a line.

    DataError where the file is missing, damaged or without questions.
    """
    questions = []
    try:
        is_json = ".jsonl" in Path(path).name or detect(Path(path)).what.startswith("JSON lines")
        with InputFile(Path(path)) as file:
            for number, line in enumerate(lines_of(file), 1):
                if type(line) is BadInput:
                    raise DataError(line.message)
                if line.strip():
                    questions.append(_question(line, f"{path}: line {number}") if is_json else line)
    except OSError as error:
        raise DataError(f"{path}: the questions cannot be read ({error.strerror or error}); check the path") from None
    if not questions:
        raise DataError(f"{path}: holds no question; stories are compared with the questions of a commonsense task")
    return questions


def _question(line: str, place: str) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{place} is not JSON ({error}); mend or drop the line") from None
    found = next((row[f] for f in _QUESTION_FIELDS if isinstance(row, dict) and isinstance(row.get(f), str)), None)
    if found is None:
        raise DataError(f"{place} has none of the fields {', '.join(_QUESTION_FIELDS)}; name one so")
    return found


def takes(form: Form) -> bool:
    """Whether a file of this form can be read here."""
    return form.what == WEB_ARCHIVE or form.reader in ("jsonl", "plain")


def _kind(path: Path) -> str:
    form = detect(path)
    if form.what == WEB_ARCHIVE or any(ending in _ARCHIVES for ending in path.suffixes[-2:]):  # a damaged one has no content
        return "archive"
    return "lines" if form.reader == "jsonl" else "plain"


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def _ngrams(words: list[str], n: int) -> set[tuple[str, ...]]:
    return set(zip(*(words[i:] for i in range(n))))


READER = Reader(records, extract, (".warc", ".wet", ".jsonl", ".txt"))
