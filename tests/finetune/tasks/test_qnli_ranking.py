"""qnli-ranking: a question's sentences are compared, one of them is right, others are mined where there is only one."""

import numpy as np
import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.tasks import build_task

_ROWS = [
    ("Who led the Norse?", "Rollo led the Norse.", "entailment"),
    ("Who led the Norse?", "They were raiders.", "not_entailment"),
    ("Where is Normandy?", "Normandy is a region in France.", "entailment"),
    ("When was it?", "It was in 1066.", "not_entailment"),
]


def write(folder, split, rows, with_labels=True):
    header = ["index", "question", "sentence", *(["label"] if with_labels else [])]
    lines = [[str(i), *row[: 3 if with_labels else 2]] for i, row in enumerate(rows)]
    (folder / f"{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in [header, *lines]), encoding="utf-8")


@pytest.fixture
def task():
    return build_task("qnli-ranking")


def test_training_has_an_item_for_every_right_sentence(tmp_path, task, reader_tokenizer):
    write(tmp_path, "train", _ROWS)
    examples = task.read(tmp_path, "train")
    # Nothing is wrong for Normandy: sentences that are like the question are mined, not the right one
    assert [bool(example.mined) for example in examples] == [False, False, True, False]
    assert "Normandy is a region in France." not in examples[2].mined
    first, second = task.items(examples, reader_tokenizer, 512, training=True)
    assert (first.detail, first.target, second.detail) == ((0, 1), 0, (2,))
    assert first.sequences[0].ids.tolist() == reader_tokenizer(*_ROWS[0][:2])["input_ids"]
    assert len(second.sequences) == 1 + len(examples[2].mined)


def test_one_sentence_of_a_question_is_right_unless_a_mined_one_is_better(tmp_path, task, reader_tokenizer):
    write(tmp_path, "train", _ROWS)
    write(tmp_path, "test", [_ROWS[1], _ROWS[2], _ROWS[0]], with_labels=False)
    examples = task.read(tmp_path, "test")
    items = task.items(examples, reader_tokenizer, 512, training=False)
    assert [item.detail for item in items] == [(0, 2), (1,)]
    mined = np.zeros(len(items[1].sequences) - 1)
    assert task.predictions(examples, items, [np.array([1.0, 2.0]), np.array([1.0, *mined])]) == [0, 1, 1]
    assert task.predictions(examples, items, [np.array([3.0, 2.0]), np.array([-1.0, *mined])]) == [1, 0, 0]
    assert task.prediction_files("test", examples, [1, 0, 0])["QNLI.tsv"].splitlines()[1] == "0\tentailment"


def test_like_sentences_are_mined_first(tmp_path, task):
    write(tmp_path, "train", _ROWS + [("Which raiders?", f"Sentence {i} of raiders.", "not_entailment") for i in range(9)])
    write(tmp_path, "dev", [("Which region is it?", "None.", "not_entailment")])
    [example] = task.read(tmp_path, "dev")
    assert example.mined[0] == "Normandy is a region in France." and len(example.mined) <= 4


def test_mining_without_a_training_set_is_refused(tmp_path, task):
    write(tmp_path, "dev", _ROWS)
    with pytest.raises(DataError, match="2 questions of the dev set have one sentence only, .* no train.tsv; put it beside"):
        task.read(tmp_path, "dev")
