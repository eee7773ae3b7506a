"""What the model sees of RACE: for every option <s> passage </s></s> question and option </s> (section 5.3)."""

import re

import numpy as np

from robustbert.data.tokenizer import Tokenizer
from robustbert.finetune.tasks.race.read import LEVELS, RaceQuestion

MAX_PAIR_LENGTH = 128  # tokens of question and option together (section 5.3)
MAX_LENGTH = 512
_BLANK = "_"
_SPACE_BEFORE_MARK = re.compile(r" (?=[.,;:?!])")
_QUESTIONS_AT_ONCE = 256


def build_sequences(
    questions: list[RaceQuestion], tokenizer: Tokenizer, max_length: int = MAX_LENGTH, max_pair_length: int = MAX_PAIR_LENGTH
) -> list[tuple[np.ndarray, ...]]:
    """The four sequences of every question, ids with the specials, at most max_length tokens each.

    Of a pair that is too long its last max_pair_length tokens stay: the option stands there, and without it the four
    sequences would be one. The passage loses its end.
    """
    num_specials = 2 + len(tokenizer.pair_separator)
    if max_length <= max_pair_length + num_specials:
        raise ValueError(
            f"max_length ({max_length}) leaves no room for the passage beside a question with its option of up to "
            f"{max_pair_length} tokens and {num_specials} specials; use at least {max_pair_length + num_specials + 1}"
        )
    sequences = []
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        some = questions[start : start + _QUESTIONS_AT_ONCE]
        passages = list(dict.fromkeys(question.passage for question in some))
        ids_of_passage = dict(zip(passages, tokenizer.encode_batch(passages)))
        pairs = tokenizer.encode_batch([pair_text(q.text, option) for q in some for option in q.options])
        for i, question in enumerate(some):
            num_options = len(question.options)
            sequences.append(
                tuple(
                    _sequence(ids_of_passage[question.passage], pair[-max_pair_length:], tokenizer, max_length)
                    for pair in pairs[i * num_options : (i + 1) * num_options]
                )
            )
    return sequences


def pair_text(question: str, option: str) -> str:
    """The question with an option: in the question's blank where it has one, behind it otherwise."""
    if question.count(_BLANK) == 1:
        filled = " ".join(question.replace(_BLANK, f" {option.strip()} ").split())
        return _SPACE_BEFORE_MARK.sub("", filled)
    return f"{question} {option.strip()}"


def accuracies(questions: list[RaceQuestion], predictions: list[int]) -> dict[str, float]:
    """Percent of right predictions: accuracy of all, and of each level that is there (Table 7)."""
    is_right = {level: [] for level in LEVELS}
    for question, prediction in zip(questions, predictions, strict=True):
        is_right[question.level].append(prediction == question.answer)
    by_level = {f"accuracy_{level}": 100 * sum(right) / len(right) for level, right in is_right.items() if right}
    return {"accuracy": 100 * sum(map(sum, is_right.values())) / len(questions), **by_level}


def _sequence(passage: list[int], pair: list[int], tokenizer: Tokenizer, max_length: int) -> np.ndarray:
    after = [*tokenizer.pair_separator, *pair, tokenizer.eos_id]
    return np.array([tokenizer.bos_id, *passage[: max_length - len(after) - 1], *after], np.int64)
