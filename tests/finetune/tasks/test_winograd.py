"""wnli-ranking: pronoun and phrase are found, only right references are learned, the margin loss is Kocijan et al.'s."""

import json

import pytest
import torch

from robustbert.data.errors import DataError
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.winograd.candidates import candidates
from robustbert.finetune.tasks.winograd.pairs import find_reference
from robustbert.finetune.tasks.winograd.read import read_wnli, read_wsc
from robustbert.finetune.tasks.winograd.task import ALPHA, BETA, margin_loss

_SENTENCE = "The trophy doesn't fit into the brown suitcase because it is too large."


def wsc_line(text="Mark told Pete lies . He should be honest .", query="Mark", number=5, pronoun="He", label=True, index=0):
    target = {"span1_text": query, "span1_index": 0, "span2_text": pronoun, "span2_index": number}
    return {"text": text, "target": target, "idx": index, "label": label}


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "first, second, pronoun, phrase",
    [
        (_SENTENCE, "The trophy is too large.", "it", "The trophy"),
        ("He was late, so Sid left. Then he ate.", "Then Sid ate.", "he", "Sid"),
        ("Ann asked Mary what she did, because she had forgotten.", "Because Mary had forgotten.", "she", "Mary"),
        ("Bob paid for Charlie's college. He is very grateful.", "Charlie is very grateful.", "He", "Charlie"),
        ("Jim saw a man juggling. He was very impressive.", "The juggler was very impressive.", "He", "The juggler"),
        ("Sam took Tom's coat because his was wet.", "Tom's was wet.", "his", "Tom"),
    ],
)
def test_pronoun_and_phrase_are_found_in_a_pair(first, second, pronoun, phrase):
    found = find_reference(first, second)
    assert (first[slice(*found.pronoun)], found.phrase) == (pronoun, phrase)


def test_last_of_equal_pronouns_is_the_one_that_the_pair_repeats():
    text = "George got tickets, but he gave them to Eric, because he was eager to see it."
    assert find_reference(text, "Eric was eager to see it.").pronoun[0] == text.rindex("he was")
    assert find_reference("No such word here.", "None.") is None


def test_wsc_is_read_without_the_spaces_of_its_tokens(tmp_path):
    [reference] = read_wsc(write_lines(tmp_path / "train.jsonl", wsc_line()))
    assert reference.text == "Mark told Pete lies. He should be honest." and reference.text[slice(*reference.pronoun)] == "He"


def test_pronoun_with_punctuation_or_one_word_further_is_read(tmp_path):
    lines = [wsc_line("He asked for him,\" he said", "He", 2, "him"), wsc_line("Take it, now", "now", 1, "it,")]
    references = read_wsc(write_lines(tmp_path / "train.jsonl", *lines))
    assert [r.text[slice(*r.pronoun)] for r in references] == ["him", "it"]
    assert references[0].text == 'He asked for him," he said'


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(number=2), "the pronoun 'He' is not the word 2 of the text"),
        (dict(number=99), "is not the word 99"),
        (dict(label="yes"), "`label` is 'yes', it should be true or false"),
        (dict(query=" "), "`span1_text` names no referent"),
    ],
)
def test_fault_of_wsc_is_named_by_file_and_line(tmp_path, change, message):
    path = write_lines(tmp_path / "val.jsonl", wsc_line(), wsc_line(**change))
    with pytest.raises(DataError) as error:
        read_wsc(path)
    assert str(error.value).startswith(f"{path}, line 2: ") and message in str(error.value)


@pytest.mark.parametrize(
    "row, message", [("0\tNo word here.\tNone.\t1", "no pronoun"), (f"0\t{_SENTENCE}\tIt fits.\t2", "unknown label '2'")]
)
def test_fault_of_wnli_is_named_by_file_and_line(tmp_path, row, message):
    path = tmp_path / "dev.tsv"
    path.write_text(f"index\tsentence1\tsentence2\tlabel\n{row}\n")
    with pytest.raises(DataError, match=f"dev.tsv, line 2: .*{message}"):
        read_wnli(path)


def test_found_pronouns_are_superglues(shared_data):
    def letters(text):
        return "".join(c for c in text.lower() if c.isalnum())

    wsc = read_wsc(shared_data / "wsc" / "test.jsonl", need_label=False)
    wnli = read_wnli(shared_data / "glue" / "WNLI" / "test.tsv", need_label=False)
    before = {(letters(r.text), len(letters(r.text[: r.pronoun[0]]))) for r in wsc}
    assert all((letters(r.text), len(letters(r.text[: r.pronoun[0]]))) in before for r in wnli)
    assert len(wnli) == 146


def test_candidates_hold_neither_the_pronoun_nor_the_query():
    texts = ("The trophy", "trophy", "the brown suitcase", "suitcase", "it is")
    phrases = [(_SENTENCE.index(text), _SENTENCE.index(text) + len(text)) for text in texts]
    pronoun = (_SENTENCE.index("it is"), _SENTENCE.index("it is") + 2)
    assert candidates(_SENTENCE, phrases, pronoun, "the trophy") == ["the brown suitcase", "suitcase"]
    assert candidates("Ann saw Joanne, who slept.", [(0, 3), (8, 14)], (16, 19), "Ann") == ["Joanne"]


def test_margin_loss():
    assert margin_loss(torch.tensor([-1.0])) == 1.0
    loss = margin_loss(torch.tensor([-1.0, -1.0 - BETA - 0.1, -0.5]))
    assert loss == pytest.approx(1.0 + ALPHA * (0 + 0.5 + BETA) / 2)


def test_only_right_references_are_learned_and_the_score_is_the_masked_models(tmp_path, reader_model, reader_tokenizer):
    pytest.importorskip("spacy", reason="spaCy is not installed: pip install '.[wnli]'")
    task = build_task("wnli-ranking")
    write_lines(tmp_path / "train.jsonl", wsc_line(), wsc_line(query="Pete", label=False, index=1))
    examples = task.read(tmp_path, "train")
    [item] = task.items(examples, reader_tokenizer, 512, training=True)
    assert item.example == 0 and len(task.items(examples, reader_tokenizer, 512, training=False)) == 2
    from transformers import AutoModelForMaskedLM

    from robustbert.finetune.batches import collate

    model = AutoModelForMaskedLM.from_pretrained(reader_model).eval()
    with torch.inference_mode():
        [scores] = task.outputs(model, collate(task, [item], reader_tokenizer.pad_token_id))
        assert len(scores) == len(item.sequences) > 1
        for sequence, blank, score in zip(item.sequences, item.detail, scores):
            logits = model(torch.tensor(sequence.ids[None], dtype=torch.long)).logits[0]
            said = torch.log_softmax(logits, -1)[blank.positions, blank.ids]
            assert (sequence.ids[blank.positions] == reader_tokenizer.mask_token_id).all()
            assert score == pytest.approx(said.mean().item(), abs=1e-4)
    filled = item.sequences[0].ids.copy()
    filled[item.detail[0].positions] = item.detail[0].ids
    assert reader_tokenizer.decode(filled, skip_special_tokens=True) == "Mark told Pete lies. Mark should be honest."


def test_missing_spacy_is_said_with_the_way_out(monkeypatch, tmp_path, reader_tokenizer):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    write_lines(tmp_path / "train.jsonl", wsc_line())
    task = build_task("wnli-ranking")
    with pytest.raises(ValueError, match=r"needs spaCy and its English model; install them with pip install '.\[wnli\]'"):
        task.items(task.read(tmp_path, "train"), reader_tokenizer, 512, training=True)


def test_predictions_are_glues_file(tmp_path):
    (tmp_path / "WNLI").mkdir()
    (tmp_path / "WNLI" / "test.tsv").write_text(f"index\tsentence1\tsentence2\n7\t{_SENTENCE}\tThe suitcase is too large.\n")
    task = build_task("wnli-ranking")
    examples = task.read(tmp_path, "test")
    assert task.prediction_files("test", examples, [True]) == {"WNLI.tsv": "index\tprediction\n7\t1\n"}


def test_white_space_around_a_sentence_moves_its_pronoun_and_is_not_in_its_text(tmp_path):
    target = {"span1_text": "The pot", "span2_text": "it", "span1_index": 1, "span2_index": 7}
    for text, number in (("The pot stood there , and it was hot . ", 6), (" The pot stood there , and it was hot .", 7)):
        line = {"text": text, "target": target | {"span2_index": number}, "label": True, "idx": 0}
        (tmp_path / "val.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
        reference = read_wsc(tmp_path / "val.jsonl")[0]
        assert reference.text == "The pot stood there, and it was hot."
        assert reference.text[slice(*reference.pronoun)] == "it"
