"""Ids are RoBERTa's, whatever the files; they are Hugging Face's on real text; bad files end in one line."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbert.data.errors import DataError
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from robustbert.data.tokenizer.encoder import CachingEncoder


def test_ids_are_robertas(roberta_tokenizer):
    tokenizer = roberta_tokenizer
    assert tokenizer.vocab_size == 50265
    assert tokenizer.special_ids == (0, 1, 2, 3, 50264)
    assert [0, *tokenizer.encode("Hello world!"), 2] == [0, 31414, 232, 328, 2]
    prompt = tokenizer.encode("A, <mask> AllenNLP sentence.", recognise_specials=True)
    assert [0, *prompt, 2] == [0, 250, 6, 50264, 3823, 487, 21992, 3645, 4, 2]


def test_special_names_in_a_corpus_stay_text(roberta_tokenizer):
    text = "a <mask> and </s> and <s> and <pad> and <unk>"
    ids = roberta_tokenizer.encode(text)
    assert not roberta_tokenizer.is_special(np.array(ids)).any()
    assert roberta_tokenizer.decode(ids) == text
    assert CachingEncoder(roberta_tokenizer).encode([text])[0].tolist() == ids


def test_hugging_face_reads_the_saved_folder_and_gives_the_same_ids(roberta_tokenizer, shared_data, tmp_path):
    transformers = pytest.importorskip("transformers")
    roberta_tokenizer.save(tmp_path / "saved")
    text = (shared_data / "text" / "wikitext-2-valid.txt").read_text()
    # The text holds a literal `<unk>`. Hugging Face always reads that as the special token; recognise_specials does the same.
    assert "<unk>" in text
    expected_prompt = [0, 250, 6, 50264, 3823, 487, 21992, 3645, 4, 2]
    for kind in (transformers.AutoTokenizer, transformers.RobertaTokenizerFast):
        theirs = kind.from_pretrained(tmp_path / "saved")
        assert theirs("A, <mask> AllenNLP sentence.").input_ids == expected_prompt
        assert (len(theirs), theirs.mask_token_id, theirs.pad_token_id) == (50265, 50264, 1)
        assert theirs(text, add_special_tokens=False).input_ids == roberta_tokenizer.encode(text, recognise_specials=True)
    # As a corpus it is plain text, so there the comparison needs text without the name.
    plain = text.replace("<unk>", "unknown")
    assert theirs(plain, add_special_tokens=False).input_ids == roberta_tokenizer.encode(plain)


def test_the_vocabularys_files_alone_give_hugging_face_the_same_ids(roberta_tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    roberta_tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved" / "tokenizer.json").unlink()
    theirs = transformers.RobertaTokenizerFast.from_pretrained(tmp_path / "saved")
    assert theirs("A, <mask> AllenNLP sentence.").input_ids == [0, 250, 6, 50264, 3823, 487, 21992, 3645, 4, 2]


def test_sha256_does_not_depend_on_the_file_format(roberta_tokenizer, tmp_path):
    roberta_tokenizer.save(tmp_path / "saved")
    saved = load_tokenizer(tmp_path / "saved")
    assert saved.sha256 == roberta_tokenizer.sha256
    assert saved.encode(" Hello world") == roberta_tokenizer.encode(" Hello world")


def test_gpt2_without_a_dictionary_gets_ids_four_higher(shared_data, tmp_path):
    for name in ("encoder.json", "vocab.bpe"):
        shutil.copy(shared_data / "bpe" / name, tmp_path)
    gpt2 = json.loads((tmp_path / "encoder.json").read_text())
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("Hello") == [gpt2["Hello"] + 4]
    assert tokenizer.vocab_size == 50257 + 5
    assert tokenizer.mask_id == tokenizer.vocab_size - 1


def test_a_trained_tokenizer_is_byte_level_with_the_specials_in_place(tokenizer, tokenizer_dir):
    assert tokenizer.vocab_size == 340
    assert tokenizer.special_ids == (0, 1, 2, 3, 339)
    text = "Unseen: żółć 猫 🙂\t\x00 end"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert load_tokenizer(tokenizer_dir).sha256 == tokenizer.sha256


def test_too_little_text_for_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="too small for a vocabulary of 5000.*use vocab_size"):
        train_tokenizer(iter(["a few words, a few words"]), 5000)


@given(st.lists(st.text(alphabet=st.sampled_from("ab Z19'srtlé½²ª_.,-“”—…\n\t\x1c\xa0<s>/猫💡٣"), max_size=40)))
@settings(max_examples=300, deadline=None)
def test_the_caching_encoder_gives_the_librarys_ids(tokenizer, texts):
    tokens, lengths = CachingEncoder(tokenizer).encode(texts)
    expected = tokenizer.encode_batch(texts)
    assert lengths.tolist() == [len(ids) for ids in expected]
    assert tokens.tolist() == [i for ids in expected for i in ids]


def test_the_caching_encoder_gives_the_librarys_ids_on_real_text(roberta_tokenizer, shared_data):
    sentences = split_sentences((shared_data / "text" / "wikitext-2-valid.txt").read_text())
    encoder = CachingEncoder(roberta_tokenizer)
    encoder.encode(sentences[:100])  # a filled cache
    tokens, _ = encoder.encode(sentences)
    assert tokens.tolist() == [i for ids in roberta_tokenizer.encode_batch(sentences) for i in ids]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer in it"),
        ({"vocab.json": "{"}, "not JSON"),
        ({"vocab.json": '{"<s>": 0, "a": 1}'}, "<pad> has id None"),
        ({"vocab.json": '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 9}'}, "ids are not 0 .. 4"),
        ({"vocab.json": '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}'}, "merges.txt: missing"),
        ({"vocab.json": '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}', "merges.txt": "x y\n"}, "line 1"),
        ({"encoder.json": '{"a": 0}', "dict.txt": "7 12\n"}, "line 1"),
        ({"encoder.json": '{"a": 0, "b": 1}', "dict.txt": "1 12\n"}, "cut off"),
    ],
)
def test_damaged_tokenizers_are_refused_in_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
