"""SQuAD's official scores, number by number: exact match, F1, and for 2.0 those with and without an answer.

The two official scorers differ where nothing is left of an answer after normalisation: see token_f1 and _golds_of.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.squad.read import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, words parted by one space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 where both are the same after normalisation, else 0."""
    return float(normalise(prediction) == normalise(gold))


def token_f1(prediction: str, gold: str, if_empty: Callable[[bool], float] = float) -> float:
    """Harmonic mean of precision and recall of the words, as bags.

    if_empty: what counts where one of the two has no word, given whether both have none; 2.0 takes agreement as right.
    """
    predicted, golden = normalise(prediction).split(), normalise(gold).split()
    if not predicted or not golden:
        return if_empty(predicted == golden)
    num_same = sum((Counter(predicted) & Counter(golden)).values())
    if not num_same:
        return 0.0
    precision, recall = num_same / len(predicted), num_same / len(golden)
    return 2 * precision * recall / (precision + recall)


def score_1_1(questions: list[Question], predictions: dict[str, str]) -> dict[str, float]:
    """exact_match and f1 in percent, as evaluate-v1.1.py gives them: of all golds the best, 0 where both are empty words.

    predictions: question id to text; a question without one counts as wrong, as there.
    """
    exact = f1 = 0.0
    for question in questions:
        prediction = predictions.get(question.id)
        if prediction is not None:
            golds = [answer.text for answer in question.answers]
            exact += max(exact_match(prediction, gold) for gold in golds)
            f1 += max(token_f1(prediction, gold, if_empty=lambda agree: 0.0) for gold in golds)
    return {"exact_match": 100 * exact / len(questions), "f1": 100 * f1 / len(questions)}


def score_2_0(
    questions: list[Question],
    predictions: dict[str, str],
    no_answer: dict[str, float] | None = None,
    threshold: float = 1.0,
) -> dict[str, float]:
    """What evaluate-v2.0.py prints, under its names and in its order.

    predictions: question id to text, empty for no answer. no_answer: question id to the probability that there is none;
    above the threshold the prediction counts as empty. With no_answer also the best threshold for exact and for f1,
    and the score at it. DataError: a question without prediction.
    """
    missing = [question.id for question in questions if question.id not in predictions]
    if missing:
        raise DataError(f"{len(missing)} of {len(questions)} questions have no prediction, the first is {missing[0]}")
    probabilities = no_answer or dict.fromkeys(predictions, 0.0)
    raw_exact = {q.id: max(exact_match(predictions[q.id], gold) for gold in _golds_of(q)) for q in questions}
    raw_f1 = {q.id: max(token_f1(predictions[q.id], gold) for gold in _golds_of(q)) for q in questions}

    def decided(raw: dict[str, float], question: Question) -> float:
        is_refused = probabilities[question.id] > threshold
        return float(not question.is_answerable) if is_refused else raw[question.id]

    scores = {}
    with_answer = [q for q in questions if q.is_answerable]
    without = [q for q in questions if not q.is_answerable]
    for prefix, some in (("", questions), ("HasAns_", with_answer), ("NoAns_", without)):
        if some:
            scores[f"{prefix}exact"] = 100 * sum(decided(raw_exact, q) for q in some) / len(some)
            scores[f"{prefix}f1"] = 100 * sum(decided(raw_f1, q) for q in some) / len(some)
            scores[f"{prefix}total"] = len(some)
    if no_answer is not None:
        for name, raw in (("exact", raw_exact), ("f1", raw_f1)):
            best, best_threshold = _best_threshold(questions, predictions, raw, no_answer)
            scores |= {f"best_{name}": best, f"best_{name}_thresh": best_threshold}
    return scores


def _golds_of(question: Question) -> list[str]:
    # 2.0 leaves out golds of which normalisation leaves nothing; a question without golds is answered by an empty text.
    return [answer.text for answer in question.answers if normalise(answer.text)] or [""]


def _best_threshold(questions, predictions, raw, no_answer) -> tuple[float, float]:
    """The best score in percent over all thresholds, and the lowest threshold that reaches it."""
    by_id = {question.id: question for question in questions}
    # With every question refused those without an answer are right; then they are accepted, the surest first.
    score = best = float(sum(not question.is_answerable for question in questions))
    threshold = 0.0
    for identity in sorted(no_answer, key=no_answer.__getitem__):
        if identity not in by_id:
            continue
        if by_id[identity].is_answerable:
            score += raw[identity]
        elif predictions[identity]:
            score -= 1
        if score > best:
            best, threshold = score, no_answer[identity]
    return 100 * best / len(questions), threshold
