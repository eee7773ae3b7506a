"""A token's three numbers: GPT-2's, fairseq's line, RoBERTa's id; each from the others."""

import json

import pytest

from robustbert.data.errors import DataError
from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from robustbert.data.tokenizer.numbering import dictionary_names, gpt2_numbers, read_dictionary, roberta_numbers

GPT2 = {"!": 0, "A": 1, "B": 2, "AB": 3, "<|endoftext|>": 4}
MERGES = [("A", "B")]
DICTIONARY = "3 90\n0 7\nmadeupword0000 0\n2 5\n1 4\n4 0\n"
SPECIALS = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 10}
ROBERTA = SPECIALS | {"AB": 4, "!": 5, "madeupword0000": 6, "B": 7, "A": 8, "<|endoftext|>": 9}


def test_an_id_is_the_line_plus_four_and_mask_comes_last(tmp_path):
    (tmp_path / "dict.txt").write_text(DICTIONARY)
    assert roberta_numbers(read_dictionary(tmp_path / "dict.txt", GPT2)) == ROBERTA


def test_mask_may_stand_at_the_end_of_the_dictionary(tmp_path):
    (tmp_path / "dict.txt").write_text(DICTIONARY + "<mask> 0\n")
    assert roberta_numbers(read_dictionary(tmp_path / "dict.txt", GPT2)) == ROBERTA


def test_gpt2s_numbers_and_the_dictionary_follow_from_the_vocabulary():
    assert gpt2_numbers(ROBERTA, MERGES) == GPT2
    assert dictionary_names(ROBERTA, GPT2) == ["3", "0", "madeupword0000", "2", "1", "4"]


def test_fairseqs_files_are_read_back_as_the_same_tokenizer(tmp_path):
    tokenizer = train_tokenizer(iter(["low lower lowest newer wider new"] * 9), 270)
    tokenizer.save_for_fairseq(tmp_path)
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256


def test_hugging_faces_single_file_is_read_as_the_same_tokenizer(tmp_path):
    tokenizer = train_tokenizer(iter(["low lower lowest newer wider new"] * 9), 270)
    tokenizer.save(tmp_path)
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).unlink()
    assert load_tokenizer(tmp_path).sha256 == tokenizer.sha256
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(DataError, match="tokenizer.json"):
        load_tokenizer(tmp_path)


def test_the_files_of_the_release_come_out_as_they_are(shared_data, tmp_path):
    given = shared_data / "bpe"
    load_tokenizer(given).save_for_fairseq(tmp_path)
    assert json.loads((tmp_path / "encoder.json").read_text()) == json.loads((given / "encoder.json").read_text())
    assert (tmp_path / "vocab.bpe").read_text() == (given / "vocab.bpe").read_text()
    names = [[line.split()[0] for line in open(folder / "dict.txt")] for folder in (tmp_path, given)]
    assert names[0] == names[1] and len(names[0]) == 50260
