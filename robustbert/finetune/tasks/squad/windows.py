"""What the model sees of SQuAD: <s> question </s></s> piece of the paragraph </s>, a sliding window over long paragraphs.

As Devlin et al. (2019), whose procedure section 5.2 follows: windows that start 128 tokens apart, questions of up to 64.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import Encoded
from robustbert.finetune.tasks.pairs import PairFrame, ids_and_offsets, pair_frame, plain_ids
from robustbert.finetune.tasks.squad.read import Question

NO_SPAN = 0  # the position of <s>: the target where a window does not hold the answer
_QUESTIONS_AT_ONCE = 1000
_MIN_ROOM = 8  # tokens of the paragraph in a window


@dataclass(frozen=True)
class WindowOptions:
    """In tokens. max_length: of a window, special tokens included."""

    max_length: int = 384
    max_query_length: int = 64
    doc_stride: int = 128


@dataclass(frozen=True)
class Window:
    """What is known of a window beside its tokens.

    first: the position of the paragraph's first token. starts, ends: the characters of the paragraph that each of its
    tokens here stands for. is_best: by token, whether no other window of the question shows it with more text on both sides.
    answer: positions of the answer's first and last token, both NO_SPAN where it is not all here.
    """

    first: int
    starts: np.ndarray
    ends: np.ndarray
    is_best: np.ndarray
    answer: tuple[int, int]


def windows_of(questions: list[Question], tokenizer, options: WindowOptions) -> Iterator[tuple[int, Encoded, Window]]:
    """(number of the question, tokens, window) of all questions in order.

    Where there are several answers the first one is the target; a training set has one.
    """
    frame = pair_frame(tokenizer)
    context, tokens = None, None
    for start in range(0, len(questions), _QUESTIONS_AT_ONCE):
        some = questions[start : start + _QUESTIONS_AT_ONCE]
        for i, ids in enumerate(plain_ids(tokenizer, [question.text for question in some])):
            question = some[i]
            if question.context != context:  # a paragraph's questions follow one another
                context, tokens = question.context, ids_and_offsets(tokenizer, question.context)
            for encoded, window in _windows(question, ids, tokens, frame, options):
                yield start + i, encoded, window


def _windows(question: Question, question_ids: list[int], tokens, frame: PairFrame, options: WindowOptions):
    context_ids, starts, ends = tokens
    question_ids = question_ids[: options.max_query_length]
    room = options.max_length - len(question_ids) - frame.num_specials
    if room < _MIN_ROOM:
        raise FinetuneError(
            f"--max-length {options.max_length} leaves {room} tokens for the paragraph beside question {question.id} "
            f"({len(question_ids)} tokens); use at least {options.max_length - room + _MIN_ROOM}"
        )
    # A window that holds less than two strides steps by half of itself, so that it leaves nothing out.
    pieces = _pieces(len(context_ids), room, min(options.doc_stride, room // 2))
    first = len(frame.before) + len(question_ids) + len(frame.between)
    span = _answer_tokens(question, starts, ends)
    for number, (begin, end) in enumerate(pieces):
        is_here = span is not None and begin <= span[0] and span[1] < end
        window = Window(
            first=first,
            starts=starts[begin:end],
            ends=ends[begin:end],
            is_best=_is_best(pieces, number),
            answer=(span[0] - begin + first, span[1] - begin + first) if is_here else (NO_SPAN, NO_SPAN),
        )
        yield frame.encode(question_ids, context_ids[begin:end]), window


def _answer_tokens(question: Question, starts: np.ndarray, ends: np.ndarray) -> tuple[int, int] | None:
    """The tokens with the answer's first and last character; None without an answer, or where no token stands for it."""
    if not question.answers:
        return None
    answer = question.answers[0]
    if answer.start is None:
        return None
    first = int(np.searchsorted(ends, answer.start, "right"))
    last = int(np.searchsorted(starts, answer.start + len(answer.text), "left")) - 1
    return (first, last) if first <= last else None


def _pieces(num_tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    pieces = [(0, min(room, num_tokens))]
    while pieces[-1][1] < num_tokens:
        begin = pieces[-1][0] + stride
        pieces.append((begin, min(begin + room, num_tokens)))
    return pieces


def _is_best(pieces: list[tuple[int, int]], number: int) -> np.ndarray:
    """For each token of a piece: whether it has its best context there, the fewer of the tokens left and right of it.

    Between equals the piece with more text in all wins, then the first, as in BERT.
    """
    positions = np.arange(*pieces[number])
    if len(pieces) == 1:
        return np.ones(len(positions), bool)
    contexts = []
    for begin, end in pieces:
        is_in = (begin <= positions) & (positions < end)
        context = np.minimum(positions - begin, end - 1 - positions) + 0.01 * (end - begin)
        contexts.append(np.where(is_in, context, -np.inf))
    return np.argmax(contexts, axis=0) == number
