"""Reads SQuAD's official JSON, 1.1 and 2.0, and names what is wrong with it by file, place and question."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.json_data import field, load_json
from robustbert.json_lines import say_error

_NEAR = 10  # characters that an answer is moved by if its text stands in several places
_MAX_MISALIGNED = 0.5  # of a file's answers; one with more is refused


@dataclass(frozen=True)
class Answer:
    """A span of the paragraph: its text, and the character where it starts; None where the paragraph does not have it."""

    text: str
    start: int | None


@dataclass(frozen=True)
class Question:
    """A question with its paragraph. answers: empty where the paragraph has none, None where the file does not tell (test)."""

    id: str
    text: str
    context: str
    answers: tuple[Answer, ...] | None

    @property
    def is_answerable(self) -> bool:
        """Whether the paragraph answers it; asks for a file that tells."""
        assert self.answers is not None
        return bool(self.answers)


class _Misaligned:
    """The answers of a file that are not what the paragraph says at their place: how many, and the first."""

    def __init__(self):
        self.num_answers, self.num_moved, self.num_lost, self.num_questions_lost = 0, 0, 0, 0
        self.first = ""

    def check(self, path: Path) -> None:
        """DataError where most answers are; otherwise a line on standard error, if any is."""
        count = self.num_moved + self.num_lost
        if count > _MAX_MISALIGNED * self.num_answers:
            raise DataError(
                f"{self.first}; so are {count} of {self.num_answers} answers of the file: their places are of another text, or counted "
                "otherwise than in characters; download it again"
            )
        if count:
            say_error(
                f"{path}: {count} of {self.num_answers} answers are misaligned: {self.num_moved} moved to where the paragraph has them, "
                f"{self.num_lost} without such a place ({self.num_questions_lost} questions left out); the first: {self.first}"
            )


def read_squad(path: Path, version: str, need_answers: bool = True, training: bool = False) -> list[Question]:
    """The questions of an official file, in its order.

    version: "1.1" or "2.0"; in 1.1 every question has an answer. need_answers=False also takes a file without answers,
    to be predicted. An answer that is not what the paragraph says at its place is moved to the place that says it, if there is
    one only or one beside it. If not, a training set does without it, and without the question if that was its only answer;
    elsewhere the text still counts in the scores. A line on standard error says how many. DataError: no such file, not JSON, a key missing, an id
    twice, most answers misaligned.
    """
    articles = field(load_json(path), "data", list, str(path))
    questions: dict[str, Question] = {}
    misaligned = _Misaligned()
    for question, place in _questions(articles, path, version, need_answers, misaligned):
        if question.id in questions:
            raise DataError(f"{place}: the id {question.id} stands in the file twice; predictions are told apart by it")
        questions[question.id] = question
    lost = [q.id for q in questions.values() if training and q.answers and all(answer.start is None for answer in q.answers)]
    misaligned.num_questions_lost = len(lost)
    misaligned.check(path)
    for identity in lost:
        del questions[identity]
    if not questions:
        raise DataError(f"{path}: holds no question; is it SQuAD's own file?")
    return [_for_training(question) for question in questions.values()] if training else list(questions.values())


def _for_training(question: Question) -> Question:
    return replace(question, answers=tuple(answer for answer in question.answers or () if answer.start is not None))


def _questions(articles: list, path: Path, version: str, need_answers: bool, misaligned: _Misaligned) -> Iterator[tuple[Question, str]]:
    for i, article in enumerate(articles):
        if isinstance(article, dict) and "context" in article and "paragraphs" not in article:
            raise DataError(
                f"{path}: data[{i}] is a question with its context, as Hugging Face's datasets have it; the official file has data, "
                "paragraphs and qas: download it (rajpurkar.github.io/SQuAD-explorer)"
            )
        for j, paragraph in enumerate(field(article, "paragraphs", list, f"{path}: data[{i}]")):
            where = f"{path}: data[{i}].paragraphs[{j}]"
            context = field(paragraph, "context", str, where)
            for k, entry in enumerate(field(paragraph, "qas", list, where)):
                place = f"{where}.qas[{k}]"
                identity = field(entry, "id", str, place)
                place = f"{place} (question {identity})"
                text = field(entry, "question", str, place).strip()
                if not text:
                    raise DataError(f"{place}: the question is empty; mend or drop it")
                answers = None
                if need_answers or "answers" in entry:
                    answers = _answers(entry, context, place, version, misaligned)
                yield Question(identity, text, context, answers), place


def _answers(entry: dict, context: str, place: str, version: str, misaligned: _Misaligned) -> tuple[Answer, ...]:
    listed = enumerate(field(entry, "answers", list, place))
    answers = tuple(_answer(answer, context, f"{place}, answers[{i}]", misaligned) for i, answer in listed)
    is_impossible = entry.get("is_impossible", False)
    if version == "1.1" and (is_impossible or not answers):
        raise DataError(f"{place}: has no answer, which SQuAD 1.1 does not know; the file is of 2.0, use the task squad2.0")
    if is_impossible and answers:
        raise DataError(f"{place}: is_impossible, yet with {len(answers)} answers; one of the two is wrong")
    if not is_impossible and not answers:
        raise DataError(f"{place}: has no answer, but is_impossible does not say so; set it to true, or drop the question")
    return answers


def _answer(answer: dict, context: str, place: str, misaligned: _Misaligned) -> Answer:
    text, start = field(answer, "text", str, place), field(answer, "answer_start", int, place)
    end = start + len(text)
    if not text.strip():
        raise DataError(f"{place}: the answer is empty; a question without an answer has is_impossible and no answers")
    misaligned.num_answers += 1
    if start >= 0 and context[start:end] == text:
        return Answer(text, start)
    if start < 0 or end > len(context):
        problem = f"the answer is at characters {start} to {end} of a paragraph of {len(context)}"
    else:
        problem = f"says {text[:40]!r}, the paragraph says {context[start:end][:40]!r} at character {start}"
    misaligned.first = misaligned.first or f"{place}: {problem}"
    places = [match.start() for match in re.finditer(re.escape(text), context)]
    nearest = min(places, key=lambda there: abs(there - start), default=None)
    if nearest is None or (len(places) > 1 and abs(nearest - start) > _NEAR):
        misaligned.num_lost += 1
        return Answer(text, None)
    misaligned.num_moved += 1
    return Answer(text, nearest)
