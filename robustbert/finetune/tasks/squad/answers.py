"""From the model's scores of tokens to answers: the best spans of a window, and the best texts of a question."""

from dataclasses import dataclass

import numpy as np

from robustbert.finetune.tasks.squad.windows import Window

NUM_BEST = 20
MAX_ANSWER_LENGTH = 30  # tokens


@dataclass(frozen=True)
class Span:
    """Characters of a paragraph, and the sum of the scores of the first and the last token."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class Prediction:
    """What is predicted of a question.

    texts: the n best answers, the best first, each with its share of the probability of these n; no empty ones.
    no_answer: the probability that there is none (2.0), None in 1.1.
    """

    id: str
    texts: tuple[tuple[str, float], ...]
    no_answer: float | None = None

    @property
    def best_text(self) -> str:
        """The best answer, whatever is known about there being one."""
        return self.texts[0][0] if self.texts else ""

    def decided_text(self, threshold: float) -> str:
        """The best answer, or an empty text where the probability of no answer is above the threshold."""
        return "" if self.no_answer is not None and self.no_answer > threshold else self.best_text


def best_spans(
    window: Window, start_scores: np.ndarray, end_scores: np.ndarray, max_length: int = MAX_ANSWER_LENGTH
) -> list[Span]:
    """The NUM_BEST spans of a window with the highest sum of scores, within the paragraph, of 1 to max_length tokens.

    start_scores, end_scores: (S,), by position of the window. A span starts where its first token has its best context.
    """
    num_tokens = len(window.starts)
    inside = slice(window.first, window.first + num_tokens)
    starts = np.where(window.is_best, start_scores[inside], -np.inf).astype(np.float64)
    ends = np.full(num_tokens + max_length, -np.inf)
    ends[:num_tokens] = end_scores[inside]
    # Row i, column j: from token i to token i + j.
    sums = starts[:, None] + np.lib.stride_tricks.sliding_window_view(ends, max_length)[:num_tokens]
    order = np.argsort(-sums, axis=None, kind="stable")[:NUM_BEST]
    chosen = [(first, first + offset) for first, offset in zip(*np.unravel_index(order, sums.shape))]
    return [
        Span(int(window.starts[i]), int(window.ends[j]), float(starts[i] + ends[j]))
        for i, j in chosen
        if np.isfinite(starts[i] + ends[j])
    ]


def best_texts(context: str, spans: list[Span]) -> tuple[tuple[str, float], ...]:
    """The NUM_BEST texts of a question's spans from all of its windows, each once, at its best span; see Prediction."""
    best: dict[str, float] = {}
    for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
        text = context[span.start : span.end].strip()  # a token may begin with the space before its word
        if text and text not in best and len(best) < NUM_BEST:
            best[text] = span.score
    if not best:
        return ()
    scores = np.array(list(best.values()))
    weights = np.exp(scores - scores.max())
    return tuple(zip(best, (weights / weights.sum()).tolist()))
