"""What the model sees of RACE: for every option <s> passage </s></s> question and option </s> (section 5.3)."""

import re
from collections.abc import Iterator

from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import Encoded
from robustbert.finetune.tasks.pairs import pair_frame, plain_ids
from robustbert.finetune.tasks.race.read import LEVELS, LETTERS, RaceQuestion

MAX_PAIR_LENGTH = 128  # tokens of question and option together (section 5.3)
_BLANK = "_"
_SPACE_BEFORE_MARK = re.compile(r" (?=[.,;:?!])")
_QUESTIONS_AT_ONCE = 256


def sequences_of(
    questions: list[RaceQuestion], tokenizer, max_length: int, max_pair_length: int = MAX_PAIR_LENGTH
) -> Iterator[tuple[Encoded, ...]]:
    """The four sequences of every question, in order, of at most max_length tokens each.

    Of a question with its option that is longer than max_pair_length the last tokens stay: there the option stands, and
    without it the four sequences would be one and the same. Of the passage the first tokens stay.
    """
    frame = pair_frame(tokenizer)
    least = max_pair_length + frame.num_specials + 1
    if max_length < least:
        raise FinetuneError(
            f"--max-length {max_length} leaves no room for the passage beside a question and its option of up to "
            f"{max_pair_length} tokens; use at least {least}"
        )
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        some = questions[start : start + _QUESTIONS_AT_ONCE]
        passages = list(dict.fromkeys(question.passage for question in some))
        passage_ids = dict(zip(passages, plain_ids(tokenizer, passages)))
        pairs = plain_ids(tokenizer, [pair_text(q.text, option) for q in some for option in q.options])
        for i, question in enumerate(some):
            four = [pair[-max_pair_length:] for pair in pairs[i * len(LETTERS) : (i + 1) * len(LETTERS)]]
            passage, room = passage_ids[question.passage], max_length - frame.num_specials
            yield tuple(frame.encode(passage[: room - len(pair)], pair) for pair in four)


def pair_text(question: str, option: str) -> str:
    """The question with an option: in the question's blank where it has one, behind it otherwise."""
    if question.count(_BLANK) == 1:
        filled = " ".join(question.replace(_BLANK, f" {option.strip()} ").split())
        return _SPACE_BEFORE_MARK.sub("", filled)
    return f"{question} {option.strip()}".strip()


def accuracies(questions: list[RaceQuestion], predictions: list[int]) -> dict[str, float]:
    """The share of right predictions: accuracy of all, and of each level that is there (Table 7)."""
    is_right = {level: [] for level in LEVELS}
    for question, prediction in zip(questions, predictions, strict=True):
        is_right[question.level].append(prediction == question.answer)
    by_level = {f"accuracy_{level}": sum(right) / len(right) for level, right in is_right.items() if right}
    return {"accuracy": sum(map(sum, is_right.values())) / len(questions), **by_level}
