"""GLUE's metrics against values computed by hand."""

import math

import pytest

from robustbert.finetune.metrics import accuracy, accuracy_and_f1, correlations, matthews

LABELS, PREDICTIONS = [1, 1, 1, 0, 0, 1], [1, 0, 1, 1, 0, 1]  # 3 true positives, 1 true negative, 1 false of each kind


def test_accuracy():
    assert accuracy(LABELS, PREDICTIONS) == {"accuracy": pytest.approx(4 / 6)}


def test_f1_is_that_of_label_1():
    scores = accuracy_and_f1(LABELS, PREDICTIONS)
    assert scores["f1"] == pytest.approx(6 / 8)
    assert scores["accuracy_and_f1"] == pytest.approx((4 / 6 + 6 / 8) / 2)


def test_f1_without_any_positive_is_0():
    assert accuracy_and_f1([0, 0], [0, 0])["f1"] == 0.0
    assert accuracy_and_f1([1, 0], [0, 0])["f1"] == 0.0


def test_matthews():
    assert matthews(LABELS, PREDICTIONS)["matthews"] == pytest.approx((3 * 1 - 1 * 1) / math.sqrt(4 * 4 * 2 * 2))
    assert matthews([0, 1], [1, 0])["matthews"] == pytest.approx(-1)


@pytest.mark.parametrize("labels, predictions", [([0, 1, 1], [1, 1, 1]), ([1, 1], [0, 1]), ([1, 1], [1, 1])])
def test_matthews_of_something_constant_is_0(labels, predictions):
    assert matthews(labels, predictions)["matthews"] == 0.0


def test_correlations():
    # Deviations (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6). Ranks (1, 2, 3) and (1, 2.5, 2.5): 1.5 / sqrt(2 * 1.5)
    scores = correlations([1.0, 2.0, 3.0], [0.0, 3.0, 3.0])
    assert scores["pearson"] == pytest.approx(3 / math.sqrt(12))
    assert scores["spearman"] == pytest.approx(1.5 / math.sqrt(3))
    assert scores["pearson_and_spearman"] == pytest.approx((scores["pearson"] + scores["spearman"]) / 2)


@pytest.mark.parametrize("labels, predictions", [([1.0, 2.0], [3.0, 3.0]), ([2.0, 2.0], [0.0, 1.0])])
def test_correlation_with_something_constant_is_0_and_no_nan(labels, predictions):
    assert set(correlations(labels, predictions).values()) == {0.0}


@pytest.mark.parametrize("metric", [accuracy, accuracy_and_f1, matthews, correlations])
def test_nothing_to_score_is_an_error(metric):
    with pytest.raises(ValueError, match="the set has no examples"):
        metric([], [])
