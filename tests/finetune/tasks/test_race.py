"""RACE: both layouts, the cuts of section 5.3, and what is wrong with a file."""

import json
from pathlib import Path

import numpy as np
import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.race.read import RaceQuestion, read_race
from robustbert.finetune.tasks.race.sequences import accuracies, pair_text, sequences_of

ARTICLE = {
    "id": "high1.txt",
    "article": "Rollo led the Norse.",
    "questions": ["Who led?", "He led  _  ."],
    "options": [["Rollo", "Charles", "no one", "all"], ["Norse", "French", "no one", "us"]],
    "answers": ["A", "A"],
}


def write(root: Path, article, layout: str = "lines") -> Path:
    path = root / ("dev.high.jsonl" if layout == "lines" else "dev/high/1.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(article) + "\n", encoding="utf-8")
    return path


def asked(text="Who led?", options=("a", "b", "c", "d"), passage="Rollo.", level="high", answer=0):
    return RaceQuestion("x#0", level, passage, text, tuple(options), answer)


def test_both_layouts_give_the_same_questions(tmp_path):
    write(tmp_path / "lines", ARTICLE)
    write(tmp_path / "files", ARTICLE, "files")
    questions = read_race(tmp_path / "lines", "dev")
    assert questions == read_race(tmp_path / "files", "dev")
    assert [(q.id, q.level, q.answer) for q in questions] == [("high1.txt#0", "high", 0), ("high1.txt#1", "high", 0)]


def test_published_layout_is_read_in_the_numbers_order(shared_data):
    questions = read_race(shared_data / "race" / "official_sample", "dev")
    assert [q.level for q in questions] == sorted((q.level for q in questions), reverse=True)
    middle = list(dict.fromkeys(int(q.id[6:].split(".")[0]) for q in questions if q.level == "middle"))
    assert middle == sorted(middle) and middle[0] == 1011 and len(middle) == 12
    assert len(read_race(shared_data / "race", "dev")) == 1114


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(answers=["A"]), "2 questions, 2 groups of options and 1 answers"),
        (dict(answers=["A", "E"]), "question 1: its answer is 'E', it should be one of A, B, C, D"),
        (dict(answers=["AB", "A"]), "question 0: its answer is 'AB'"),
        (dict(options=[["a"] * 4, ["a"] * 3]), "question 1: its options are"),
        (dict(article=" "), "the article is empty"),
        (dict(questions=["?", 3]), "`questions` has '3' as its item 1"),
        (dict(article=None), "`article` is 'None', it should be a text"),
    ],
)
def test_fault_is_named_by_file_and_place(tmp_path, change, message):
    path = write(tmp_path, ARTICLE | change)
    with pytest.raises(DataError) as error:
        read_race(tmp_path, "dev")
    assert str(error.value).startswith(f"{path}, line 1") and message in str(error.value)
    path = write(tmp_path / "files", ARTICLE | change, "files")
    with pytest.raises(DataError) as error:
        read_race(tmp_path / "files", "dev")
    assert str(error.value).startswith(str(path)) and message in str(error.value)


def test_cut_off_file_and_missing_split_are_named(tmp_path):
    path = write(tmp_path, ARTICLE)
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match="line 1: not JSON, or cut off"):
        read_race(tmp_path, "dev")
    with pytest.raises(FileNotFoundError):
        read_race(tmp_path, "train")


def test_option_fills_the_questions_blank_or_follows_it():
    assert pair_text("He led  _  .", "the Norse") == "He led the Norse."
    assert pair_text("Who led?", " Rollo ") == "Who led? Rollo"
    assert pair_text("_ led _ .", "Rollo; Norse") == "_ led _ . Rollo; Norse"


def test_sequences_are_passage_then_question_with_option(reader_tokenizer):
    [four] = sequences_of([asked(passage="Rollo led the Norse.")], reader_tokenizer, 512)
    for option, sequence in zip("abcd", four):
        assert sequence.ids.tolist() == reader_tokenizer("Rollo led the Norse.", f"Who led? {option}")["input_ids"]


def test_cuts_keep_the_options_apart_and_the_passages_start(reader_tokenizer):
    question = asked("who " * 400, options=("Rollo", "Charles", "Norse", "France"), passage="the leader " * 400)
    [four] = sequences_of([question], reader_tokenizer, 256)
    assert {len(sequence) for sequence in four} == {256}
    separators = [np.flatnonzero(s.ids == reader_tokenizer.sep_token_id) for s in four]
    assert all(last - second - 1 == 128 for _, second, last in separators)
    assert len({sequence.ids.tobytes() for sequence in four}) == 4
    passage = reader_tokenizer("the leader " * 400, add_special_tokens=False)["input_ids"]
    assert all(s.ids[1 : 1 + 256 - 128 - 4].tolist() == passage[: 256 - 128 - 4] for s in four)


def test_too_small_a_length_is_refused(reader_tokenizer):
    with pytest.raises(FinetuneError, match="--max-length 128 leaves no room for the passage .* use at least 133"):
        list(sequences_of([asked()], reader_tokenizer, 128))


def test_accuracy_is_that_of_all_questions_and_of_each_level():
    questions = [asked(level="middle", answer=1), asked(answer=2), asked(answer=3)]
    assert accuracies(questions, [1, 2, 0]) == {"accuracy": 2 / 3, "accuracy_middle": 1.0, "accuracy_high": 0.5}
    assert "accuracy_middle" not in accuracies(questions[1:], [0, 0])


def test_predictions_file_names_questions_and_letters():
    files = build_task("race").prediction_files("dev", [asked(), asked()][:1], [2])
    assert json.loads(files["predictions_dev.json"]) == {"x#0": "C"}


def test_settings_are_table_10s():
    def column(name):
        settings = build_task(name).settings
        return settings.lr, settings.batch_size, settings.weight_decay, settings.epochs, settings.warmup_ratio

    assert column("race") == (1e-5, 16, 0.1, 4, 0.06)
    assert column("squad1.1") == column("squad2.0") == (1.5e-5, 48, 0.01, 2, 0.06)


def test_texts_are_stripped_and_line_ends_are_spaces_as_in_fairseqs_preprocessing(tmp_path):
    article = {"id": "a.txt", "article": " First line .\nSecond line .\n", "questions": [" Who ? "], "answers": ["A"]}
    article["options"] = [["One ", " two", "three", "four"]]
    (tmp_path / "dev.middle.jsonl").write_text(json.dumps(article) + "\n", encoding="utf-8")
    question = read_race(tmp_path, "dev")[0]
    assert (question.passage, question.text) == ("First line . Second line .", "Who ?")
    assert [pair_text(question.text, option) for option in question.options[:2]] == ["Who ? One", "Who ? two"]
