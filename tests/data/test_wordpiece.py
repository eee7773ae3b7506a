"""WordPiece: ids are BERT's, on real text Hugging Face's; training does not depend on chance; bad files end in one line."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbert.config import CorpusConfig, DataConfig, MaskingConfig, TrainConfig, TrainTokenizerConfig
from robustbert.config.sections import TokenizerSource
from robustbert.data.batches import build_train_batches
from robustbert.data.errors import DataError
from robustbert.data.prepare import prepare_run
from robustbert.data.text.sentences import split_sentences
from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from robustbert.data.tokenizer.encoder import CachingEncoder
from tests.data.conftest import make_text

SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")


@pytest.fixture(scope="module")
def real_text(shared_data):
    return (shared_data / "text" / "wikitext-2-valid.txt").read_text()


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def trained(request, real_text):
    return train_tokenizer(iter(split_sentences(real_text)), 3000, "wordpiece", request.param)


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(iter(split_sentences(make_text(300))), 200, "wordpiece")


def write_vocabulary(folder, tokens, settings=None):
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_ids_are_the_lines_of_berts_file(tmp_path):
    tokens = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "cafe", "!", "Un", "café"]
    uncased = load_tokenizer(write_vocabulary(tmp_path, tokens))
    assert (uncased.bos_id, uncased.pad_id, uncased.eos_id, uncased.unk_id, uncased.mask_id) == (3, 0, 4, 2, 5)
    assert uncased.encode("  Unaffable\tCAFÉ! ") == [6, 7, 8, 9, 10]
    assert uncased.encode("zebra") == [2]
    assert uncased.decode([6, 7, 8, 9, 10]) == "unaffable cafe!"
    assert uncased.pair_separator == (4,)
    cased = load_tokenizer(write_vocabulary(tmp_path, tokens, {"do_lower_case": False}))
    assert cased.encode("Unaffable café un") == [11, 7, 8, 12, 6]
    assert cased.sha256 != uncased.sha256
    starts, ends = cased.word_edges()
    assert np.flatnonzero(~starts).tolist() == [7, 8] and np.flatnonzero(ends).tolist() == [0, 2, 3, 4, 5]


def test_special_names_in_a_corpus_stay_text(small):
    ids = small.encode("the [MASK] and [SEP]")
    assert not {small.mask_id, small.eos_id} & set(ids)
    assert small.mask_id in small.encode("the [MASK] and", recognise_specials=True)


def test_hugging_face_reads_the_saved_folder_and_gives_the_same_ids(trained, real_text, tmp_path):
    transformers = pytest.importorskip("transformers")
    trained.save(tmp_path / "saved")
    texts = [*real_text.splitlines(), "naïve CAFÉ, 猫と犬 a\u200bb\x07c", "x" * 200, "  "]
    expected = trained.encode_batch(texts)
    for kind in (transformers.AutoTokenizer, transformers.BertTokenizerFast):
        theirs = kind.from_pretrained(tmp_path / "saved")
        assert theirs(texts, add_special_tokens=False).input_ids == expected
        pair = theirs("the first", "and the second")
        first, second = trained.encode_batch(["the first", "and the second"])
        assert pair.input_ids == [trained.bos_id, *first, trained.eos_id, *second, trained.eos_id]
        assert pair.token_type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert (len(theirs), theirs.mask_token_id, theirs.pad_token_id) == (3000, trained.mask_id, trained.pad_id)


def test_a_saved_tokenizer_and_a_copy_in_another_process_are_the_same(trained, tmp_path):
    trained.save(tmp_path / "saved")
    for other in (load_tokenizer(tmp_path / "saved"), pickle.loads(pickle.dumps(trained))):
        assert other.sha256 == trained.sha256
        assert other.encode("Hello, Café") == trained.encode("Hello, Café")


def test_the_caching_encoder_gives_the_librarys_ids_on_real_text(trained, real_text):
    sentences = split_sentences(real_text)
    encoder = CachingEncoder(trained)
    encoder.encode(sentences[:100])
    tokens, lengths = encoder.encode(sentences)
    expected = trained.encode_batch(sentences)
    assert tokens.tolist() == [i for ids in expected for i in ids]
    assert lengths.tolist() == [len(ids) for ids in expected]


@given(st.lists(st.text(alphabet=st.sampled_from("ab Z19'srtlé½²ª_.,-“”—…\n\t\x1c\xa0[]©/猫💡٣\u0301"), max_size=40)))
@settings(max_examples=200, deadline=None)
def test_the_caching_encoder_gives_the_librarys_ids(small, texts):
    tokens, lengths = CachingEncoder(small).encode(texts)
    expected = small.encode_batch(texts)
    assert lengths.tolist() == [len(ids) for ids in expected]
    assert tokens.tolist() == [i for ids in expected for i in ids]


def test_training_in_another_process_gives_the_same_ids(small):
    code = (
        "from robustbert.data.tokenizer import train_tokenizer\n"
        "from robustbert.data.text.sentences import split_sentences\n"
        "from tests.data.conftest import make_text\n"
        "print(train_tokenizer(iter(split_sentences(make_text(300))), 200, 'wordpiece').sha256)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == small.sha256
    assert small.special_ids == (2, 0, 3, 1, 4)


def test_too_little_text_for_the_vocabulary_is_refused():
    with pytest.raises(DataError, match="too small for a vocabulary of 5000.*use vocab_size"):
        train_tokenizer(iter(["a few words, a few words"]), 5000, "wordpiece")


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (["[PAD]", "a"], None, r"\[CLS\], \[SEP\], \[UNK\], \[MASK\] is not in it"),
        ([*SPECIALS, "a", "b", "a"], None, "'a' stands on several lines"),
        ([*SPECIALS, "a"], {"do_lower_case": "yes"}, "do_lower_case must be true or false"),
        ([*SPECIALS, "a"], ["do_lower_case"], "must hold names and values"),
    ],
)
def test_damaged_tokenizers_are_refused_in_one_line(tmp_path, lines, settings, message):
    write_vocabulary(tmp_path, lines, settings)
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_run_trains_a_wordpiece_and_gets_pairs_with_whole_words_masked(tmp_path):
    (tmp_path / "text.txt").write_text(make_text(200, seed=3) + "\n\n\n\x07 \x08.\n")
    source = TokenizerSource(TrainTokenizerConfig(200, kind="wordpiece"))
    config = DataConfig(
        source,
        (CorpusConfig(text=str(tmp_path / "text.txt")),),
        format="segment-pair",
        sequence_length=64,
        masking=MaskingConfig(whole_word=True),
        num_workers=0,
    )
    prepared = prepare_run(config, tmp_path / "data")
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    batches = build_train_batches(prepared, config, TrainConfig(global_batch_size=8, micro_batch_size=4), 1, 0, 1)
    assert list(batches.corpus_samples(1)) == [str(tmp_path / "text.txt")]
    starts, _ = tokenizer.word_edges()
    for batch in batches.micro_batches(0):
        tokens = batch.tokens_BS.flatten().clone()
        tokens[batch.masked_positions_M] = batch.targets_M
        selected = np.zeros(len(tokens), bool)
        selected[batch.masked_positions_M] = True
        continues = np.flatnonzero(~starts[tokens.numpy()])
        np.testing.assert_array_equal(selected[continues], selected[continues - 1])
        real = tokens[batch.attended_BS.flatten()] if batch.attended_BS is not None else tokens
        assert (real == tokenizer.eos_id).sum() == 2 * (batch.is_next_B >= 0).sum() + (batch.is_next_B == -1).sum()
