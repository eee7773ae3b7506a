"""Reads SQuAD's official JSON, 1.1 and 2.0, and names what is wrong with it by file, place and question."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.json_data import field, load_json


@dataclass(frozen=True)
class Answer:
    """A span of the paragraph: its text, and the character where it starts."""

    text: str
    start: int


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


def read_squad(path: Path, version: str, need_answers: bool = True) -> list[Question]:
    """The questions of an official file, in its order.

    version: "1.1" or "2.0"; in 1.1 every question has an answer. need_answers=False also takes a file without answers,
    to be predicted. DataError: no such file, not JSON, a key missing, an id twice, an answer that is not what the
    paragraph says at its place.
    """
    articles = field(load_json(path), "data", list, str(path))
    questions: dict[str, Question] = {}
    for question, place in _questions(articles, path, version, need_answers):
        if question.id in questions:
            raise DataError(f"{place}: the id {question.id} stands in the file twice; predictions are told apart by it")
        questions[question.id] = question
    if not questions:
        raise DataError(f"{path}: holds no question; is it SQuAD's own file?")
    return list(questions.values())


def _questions(articles: list, path: Path, version: str, need_answers: bool) -> Iterator[tuple[Question, str]]:
    for i, article in enumerate(articles):
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
                    answers = _answers(entry, context, place, version)
                yield Question(identity, text, context, answers), place


def _answers(entry: dict, context: str, place: str, version: str) -> tuple[Answer, ...]:
    answers = tuple(
        _answer(answer, context, f"{place}, answers[{i}]") for i, answer in enumerate(field(entry, "answers", list, place))
    )
    is_impossible = entry.get("is_impossible", False)
    if version == "1.1" and (is_impossible or not answers):
        raise DataError(f"{place}: has no answer, which SQuAD 1.1 does not know; the file is of 2.0, use the task squad2.0")
    if is_impossible and answers:
        raise DataError(f"{place}: is_impossible, yet with {len(answers)} answers; one of the two is wrong")
    if not is_impossible and not answers:
        raise DataError(f"{place}: has no answer, but is_impossible does not say so; set it to true, or drop the question")
    return answers


def _answer(answer: dict, context: str, place: str) -> Answer:
    text, start = field(answer, "text", str, place), field(answer, "answer_start", int, place)
    end = start + len(text)
    if not text:
        raise DataError(f"{place}: the answer is empty; a question without an answer has is_impossible and no answers")
    if start < 0 or end > len(context):
        raise DataError(f"{place}: the answer is at characters {start} to {end} of a paragraph of {len(context)}; mend it")
    if context[start:end] != text:
        raise DataError(f"{place}: says {text[:40]!r}, the paragraph says {context[start:end][:40]!r} at character {start}")
    return Answer(text, start)
