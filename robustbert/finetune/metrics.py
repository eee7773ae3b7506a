"""GLUE's official metrics, by scikit-learn and scipy, with the cases settled that those leave open.

Nothing to score is an error. A correlation with something constant is 0: it says nothing about the other.
"""

import warnings
from collections.abc import Sequence

from robustbert.finetune.settings import FinetuneError


def accuracy(labels: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """The share of right predictions."""
    from sklearn.metrics import accuracy_score

    _check(labels, predictions)
    return {"accuracy": float(accuracy_score(labels, predictions))}


def accuracy_and_f1(labels: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Accuracy, F1 of label 1 (0 where neither side has it), and their mean, which the leaderboard shows (MRPC, QQP)."""
    from sklearn.metrics import f1_score

    scores = accuracy(labels, predictions)
    scores["f1"] = float(f1_score(labels, predictions, zero_division=0.0))
    return scores | {"accuracy_and_f1": (scores["accuracy"] + scores["f1"]) / 2}


def matthews(labels: Sequence[int], predictions: Sequence[int]) -> dict[str, float]:
    """Matthews' correlation (CoLA), 0 where labels or predictions are all the same; accuracy beside it."""
    from sklearn.metrics import matthews_corrcoef

    scores = accuracy(labels, predictions)
    if _is_constant(labels) or _is_constant(predictions):
        return {"matthews": 0.0} | scores
    return {"matthews": float(matthews_corrcoef(labels, predictions))} | scores


def correlations(labels: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation and their mean (STS-B)."""
    from scipy.stats import pearsonr, spearmanr

    _check(labels, predictions)
    if _is_constant(labels) or _is_constant(predictions):
        return {"pearson_and_spearman": 0.0, "pearson": 0.0, "spearman": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant predictions
        pearson, spearman = float(pearsonr(labels, predictions)[0]), float(spearmanr(labels, predictions)[0])
    return {"pearson_and_spearman": (pearson + spearman) / 2, "pearson": pearson, "spearman": spearman}


def _check(labels: Sequence, predictions: Sequence) -> None:
    assert len(labels) == len(predictions), (len(labels), len(predictions))
    if not len(labels):
        raise FinetuneError("there is nothing to score: the set has no examples")


def _is_constant(values: Sequence) -> bool:
    return len(set(values)) < 2
