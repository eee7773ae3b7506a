"""SQuAD's scores are those of the official scorers. Expected figures without a derivation were printed by these."""

import json
import random

import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.tasks.squad.read import Answer, Question, read_squad
from robustbert.finetune.tasks.squad.scores import exact_match, normalise, score_1_1, score_2_0, token_f1


def question(identity, *golds):
    return Question(identity, "?", "-", tuple(Answer(gold, 0) for gold in golds))


@pytest.mark.parametrize(
    "text, normalised",
    [
        ("The  Cat's\tpyjamas!", "cats pyjamas"),
        ("an", ""),
        ("...", ""),
        ("a-the-b", "atheb"),
        ("the\u00a0end", "end"),
        ("\u201cThe\u201d end", "\u201c \u201d end"),  # only ASCII's punctuation goes, and it is no part of a word
        ("\u00c9COLE", "\u00e9cole"),
        ("atheist", "atheist"),
    ],
)
def test_normalisation(text, normalised):
    assert normalise(text) == normalised


def test_f1_counts_words_as_often_as_both_have_them():
    assert token_f1("to be or be", "be be be") == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert token_f1("x", "y") == 0 and token_f1("The cat", "cat!") == 1


def test_best_of_several_golds_counts_by_itself_for_each_score():
    scores = score_1_1([question("q", "one two three", "five")], {"q": "two three four"})
    assert scores == {"exact_match": 0, "f1": pytest.approx(100 * 2 / 3)}


def test_the_two_scorers_differ_where_no_word_is_left():
    only_articles = question("q", "the")
    assert score_1_1([only_articles], {"q": "a"}) == {"exact_match": 100, "f1": 0}
    assert (score_2_0([only_articles], {"q": "a"})["exact"], score_2_0([only_articles], {"q": "a"})["f1"]) == (100, 100)


def test_1_1_counts_a_missing_prediction_as_wrong_and_2_0_names_it():
    questions = [question("q1", "one"), question("q2", "two")]
    assert score_1_1(questions, {"q1": "one"}) == {"exact_match": 50, "f1": 50}
    with pytest.raises(DataError, match="1 of 2 questions have no prediction, the first is q2"):
        score_2_0(questions, {"q1": "one"})


def test_no_answer_is_right_only_where_there_is_none():
    questions = [question("yes", "one"), question("no")]
    scores = score_2_0(questions, {"yes": "", "no": ""})
    assert (scores["exact"], scores["HasAns_exact"], scores["NoAns_exact"]) == (50, 0, 100)
    assert score_2_0(questions, {"yes": "one", "no": "one"})["NoAns_f1"] == 0
    assert score_2_0(questions, {"yes": "one", "no": "..."})["NoAns_f1"] == 100  # nothing is left of it


def test_probability_above_the_threshold_refuses_and_the_best_threshold_is_found():
    questions = [question("a", "one"), question("b", "two"), question("c"), question("d")]
    predictions = {"a": "one", "b": "two", "c": "x", "d": "y"}
    no_answer = {"a": 0.1, "b": 0.4, "c": 0.3, "d": 0.9}
    scores = score_2_0(questions, predictions, no_answer, threshold=0.35)
    assert (scores["exact"], scores["HasAns_exact"], scores["NoAns_exact"]) == (50, 50, 50)
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (75, 0.1)
    # A threshold is kept where a later one is only as good; what equals it is not refused
    assert score_2_0(questions, predictions, no_answer, threshold=0.1)["exact"] == 75


def test_refusing_all_may_be_best():
    scores = score_2_0([question("a", "one"), question("b")], {"a": "x", "b": "y"}, {"a": 0.5, "b": 0.4})
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (50, 0.0)


def wrecked(question, rng):
    golds, words = [answer.text for answer in question.answers], question.context.split()
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(["", ".", "the", "an a", "--!", "  ", "\u201cthe\u201d", "\u00e9"])
    if golds and kind < 4:
        return [rng.choice(golds), "the " + rng.choice(golds).upper() + "!", rng.choice(golds)[1:] + " x"][kind - 1]
    start = rng.randrange(len(words))
    return " ".join(words[start : start + rng.randint(1, 5)])


def predictions_of(questions):
    rng = random.Random(5)
    predictions = {q.id: wrecked(q, rng) for q in questions}
    is_right = {q.id: predictions[q.id] in [answer.text for answer in q.answers] for q in questions}
    return predictions, {identity: round(rng.random() * (0.2 if right else 1), 2) for identity, right in is_right.items()}


def test_scores_of_wrecked_predictions_are_evaluate_v2_0s(shared_data):
    questions = read_squad(shared_data / "squad" / "dev-v2.0-subset.json", "2.0")
    predictions, no_answer = predictions_of(questions)
    expected = json.loads(_OFFICIAL_2_0)
    scores = score_2_0(questions, predictions, no_answer, 0.5)
    assert list(scores) == list(expected) and scores == pytest.approx(expected, abs=1e-9)


def test_scores_of_wrecked_predictions_are_evaluate_v1_1s(shared_data):
    questions = read_squad(shared_data / "squad" / "train-v1.1-derived.json", "1.1")
    predictions, _ = predictions_of(questions)
    assert score_1_1(questions, predictions) == pytest.approx(json.loads(_OFFICIAL_1_1), abs=1e-9)


_OFFICIAL_2_0 = """
{
 "exact": 39.94314143567875,
 "f1": 41.75308562807159,
 "total": 1407,
 "HasAns_exact": 24.680851063829788,
 "HasAns_f1": 28.293037558435103,
 "HasAns_total": 705,
 "NoAns_exact": 55.27065527065527,
 "NoAns_f1": 55.27065527065527,
 "NoAns_total": 702,
 "best_exact": 50.24875621890547,
 "best_exact_thresh": 0.1,
 "best_f1": 50.56773953362438,
 "best_f1_thresh": 0.1
}
"""
_OFFICIAL_1_1 = '{"exact_match": 29.48981926332647, "f1": 35.480991216669445}'
