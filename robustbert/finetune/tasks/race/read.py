"""Reads RACE: its own folders (dev/middle/*.txt, one JSON object a file), or one article a line in dev.middle.jsonl."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.json_data import field, load_json, load_json_lines, texts

LEVELS = ("middle", "high")
LETTERS = "ABCD"


@dataclass(frozen=True)
class RaceQuestion:
    """A question about a passage. id: the article's and the question's number in it.

    answer: 0 to 3, None where the file does not tell.
    """

    id: str
    level: str
    passage: str
    text: str
    options: tuple[str, ...]
    answer: int | None


def read_race(folder: Path, split: str, need_answers: bool = True) -> list[RaceQuestion]:
    """The questions of a split (train, dev or test), middle school before high school, each level in its files' order.

    One level alone will do. FileNotFoundError where the split is in neither layout; DataError: a file or line that is no
    article of RACE, or no question in all.
    """
    questions = []
    if not any((folder / f"{split}.{level}.jsonl").is_file() or (folder / split / level).is_dir() for level in LEVELS):
        raise FileNotFoundError(f"{folder / split}/middle, high or {split}.middle.jsonl, {split}.high.jsonl")
    for level in LEVELS:
        for place, article in _articles(folder, split, level):
            questions += _questions(article, place, level, need_answers)
    if not questions:
        raise DataError(
            f"{folder}: holds no question of RACE's {split} set; in it should be {split}/middle/*.txt and {split}/high/*.txt "
            f"as published, or {split}.middle.jsonl and {split}.high.jsonl"
        )
    return questions


def _articles(folder: Path, split: str, level: str) -> Iterator[tuple[str, object]]:
    lines = folder / f"{split}.{level}.jsonl"
    if lines.is_file():
        yield from load_json_lines(lines)
        return
    for path in sorted((folder / split / level).glob("*.txt"), key=_file_number):
        yield str(path), load_json(path)


def _file_number(path: Path) -> tuple[int, str]:
    return (int(path.stem) if path.stem.isdigit() else 0), path.name


def _questions(article, place: str, level: str, need_answers: bool) -> Iterator[RaceQuestion]:
    identity, passage = field(article, "id", str, place), field(article, "article", str, place)
    place = f"{place} (article {identity})"
    questions, options = texts(article, "questions", place), field(article, "options", list, place)
    has_answers = need_answers or "answers" in article
    answers = texts(article, "answers", place) if has_answers else [None] * len(questions)
    if not len(questions) == len(options) == len(answers):
        raise DataError(
            f"{place}: {len(questions)} questions, {len(options)} groups of options and {len(answers)} answers; "
            "there should be as many of each"
        )
    if not passage.strip():
        raise DataError(f"{place}: the article is empty; mend or drop it")
    for number, (text, group, letter) in enumerate(zip(questions, options, answers)):
        where = f"{place}, question {number}"
        if not isinstance(group, list) or len(group) != len(LETTERS) or not all(isinstance(o, str) for o in group):
            raise DataError(f"{where}: its options are {str(group)[:60]!r}, they should be a list of four texts")
        if letter is not None and (len(letter) != 1 or letter not in LETTERS):
            raise DataError(f"{where}: its answer is {letter[:40]!r}, it should be one of A, B, C, D")
        answer = None if letter is None else LETTERS.index(letter)
        # As fairseq (examples/roberta/preprocess_RACE.py): line ends are spaces, and its BPE encoder strips what it encodes
        passage_line = passage.replace("\n", " ").strip()
        yield RaceQuestion(f"{identity}#{number}", level, passage_line, text.strip(), tuple(group), answer)
