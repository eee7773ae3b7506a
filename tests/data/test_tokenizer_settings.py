"""Settings of a saved tokenizer: ids are those of the library that saved the folder, or the setting is refused by its name.

The folders are saved by transformers itself; version 4's form, which has more files, is laid out from what 4.57.6 writes.
"""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from robustbert.data.errors import DataError
from robustbert.data.tokenizer import load_tokenizer, train_tokenizer
from robustbert.data.tokenizer.encoder import CachingEncoder
from robustbert.data.tokenizer.with_transformers import keep_added_specials, read_with_transformers
from tests.data.conftest import make_text

TEXTS = [
    "The model reads words 2019 times. It's the mask's turn.",
    " Café the wor word covid <url>x <ent>model</ent> Abc abc Def def a <l> b <r> c covids [URL]y 猫と犬  Ärger n\u0303 end ",
    "\u0130stanbul READS every day",
]


def with_backend(change):
    return lambda tokenizer: change(tokenizer.backend_tokenizer)


def set_part(name, value):
    return with_backend(lambda backend: setattr(backend, name, value))


def set_option(name, value):
    return with_backend(lambda backend: setattr(backend.model, name, value))


def set_call_arguments(backend):
    backend.enable_truncation(5)
    backend.enable_padding(length=20)


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False)
ADDED = [AddedToken("wor", single_word=True), AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True)]
ADDED += [AddedToken("Abc", normalized=True), AddedToken("Def", normalized=False), AddedToken("covid")]
SAME = {
    "plain": lambda tokenizer: None,
    "added tokens": lambda tokenizer: tokenizer.add_tokens(ADDED),
    "special tokens": lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<ent>", "</ent>"]}),
    "Lowercase": set_part("normalizer", normalizers.Lowercase()),
    "NFC": set_part("normalizer", normalizers.NFC()),
    "strip accents": set_part("normalizer", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])),
    "Digits": set_part("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTE_LEVEL])),
    "another regex": set_part(
        "pre_tokenizer",
        pre_tokenizers.Sequence([pre_tokenizers.Split("ea", "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]),
    ),
    "byte_fallback": set_option("byte_fallback", True),
    "unk_token": set_option("unk_token", "<unk>"),
    "post-processor": set_part("post_processor", processors.ByteLevel(trim_offsets=False)),
    "truncation and padding": with_backend(set_call_arguments),
}
REFUSED = {
    "Metaspace": (set_part("pre_tokenizer", pre_tokenizers.Metaspace()), "pre_tokenizer Metaspace is not supported"),
    "Whitespace": (set_part("pre_tokenizer", pre_tokenizers.Whitespace()), "pre_tokenizer Whitespace is not supported"),
    "use_regex": (set_part("pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False)), "use_regex false"),
    "Strip": (set_part("normalizer", normalizers.Strip()), "normalizer Strip is not supported"),
    "Replace": (set_part("normalizer", normalizers.Replace(" ", "_")), "normalizer Replace is not supported"),
    "dropout": (set_option("dropout", 0.1), "dropout is 0.1"),
    "ignore_merges": (set_option("ignore_merges", True), "ignore_merges is true"),
    "continuing_subword_prefix": (set_option("continuing_subword_prefix", "##"), 'continuing_subword_prefix is "##"'),
    "end_of_word_suffix": (set_option("end_of_word_suffix", "</w>"), 'end_of_word_suffix is "</w>"'),
}
WORDPIECE_SAME = {
    "plain": ({}, lambda tokenizer: None),
    "do_lower_case": ({"do_lower_case": False}, lambda tokenizer: None),
    "strip_accents": ({"strip_accents": False}, lambda tokenizer: None),
    "tokenize_chinese_chars": ({"tokenize_chinese_chars": False}, lambda tokenizer: None),
    "added tokens": ({}, lambda tokenizer: tokenizer.add_tokens([*ADDED, "[URL]"])),
    "truncation and padding": ({}, with_backend(set_call_arguments)),
}
WORDPIECE_REFUSED = {
    "max_input_chars_per_word": (set_option("max_input_chars_per_word", 5), "max_input_chars_per_word is 5"),
    "clean_text": (set_part("normalizer", normalizers.BertNormalizer(clean_text=False)), "clean_text false"),
    "NFKC": (set_part("normalizer", normalizers.NFKC()), "normalizer NFKC of a WordPiece is not supported"),
    "Whitespace": (set_part("pre_tokenizer", pre_tokenizers.Whitespace()), "pre_tokenizer Whitespace of a WordPiece"),
}


@pytest.fixture(scope="module")
def wordpiece_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece") / "small"
    train_tokenizer(iter([make_text(50), *TEXTS, *TEXTS, "Ärger café", "arger cafe"]), 180, "wordpiece", lowercase=False).save(folder)
    return folder


@pytest.fixture
def saved(tmp_path, tokenizer_dir):
    """saved(change, ...) is the folder that transformers saves of the small byte-level BPE, or of the tokenizer in `source`."""

    def save(change, source=tokenizer_dir, **settings):
        transformers = pytest.importorskip("transformers")
        kind = transformers.BertTokenizerFast if (source / "vocab.txt").is_file() else transformers.RobertaTokenizerFast
        tokenizer = kind.from_pretrained(source, **settings)
        change(tokenizer)
        tokenizer.save_pretrained(tmp_path / "saved")
        return tmp_path / "saved"

    return save


def as_version_4(folder):
    """The same folder in transformers 4.57.6's form: vocabulary, merges and added tokens also stand in files of their own."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    added = {token["content"]: token.pop("id") for token in whole["added_tokens"]}
    new = {content: i for content, i in added.items() if content not in whole["model"]["vocab"]}
    if new:
        (folder / "added_tokens.json").write_text(json.dumps(new))
    extra = config.pop("extra_special_tokens", [])
    config["added_tokens_decoder"] = {str(added[token["content"]]): token for token in whole["added_tokens"]}
    config["additional_special_tokens"] = extra
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": "<mask>", "additional_special_tokens": extra}))
    return folder


def ids_of_the_library(folder):
    """What the tokenizers library gives; truncation and padding are arguments of a call, as transformers treats them."""
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.no_truncation()
    library.no_padding()
    return [library.encode(text, add_special_tokens=False).ids for text in TEXTS]


def check_same(folder, expected):
    """All that encodes gives the same ids: ours, its fast path, a copy, what it saves, and the tokenizer of finetuning."""
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode_batch(TEXTS) == expected == [tokenizer.encode(text) for text in TEXTS]
    assert CachingEncoder(tokenizer).encode(TEXTS)[0].tolist() == [i for ids in expected for i in ids]
    assert pickle.loads(pickle.dumps(tokenizer)).encode_batch(TEXTS) == expected
    assert read_with_transformers(folder)(TEXTS, add_special_tokens=False).input_ids == expected
    again = folder.parent / "again"
    tokenizer.save(again)
    assert load_tokenizer(again).sha256 == tokenizer.sha256
    assert read_with_transformers(again)(TEXTS, add_special_tokens=False).input_ids == expected
    return tokenizer


@pytest.mark.parametrize("form", ["5", "4"])
@pytest.mark.parametrize("name", SAME)
def test_ids_are_those_of_the_library_that_saved_the_folder(saved, tokenizer, name, form):
    folder = saved(SAME[name])
    if form == "4":
        as_version_4(folder)
    read = check_same(folder, ids_of_the_library(folder))
    without_effect = ("plain", "byte_fallback", "unk_token", "post-processor", "truncation and padding")
    assert (read.sha256 == tokenizer.sha256) == (name in without_effect)
    assert (read.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)) == (name in without_effect)


@pytest.mark.parametrize("form", ["5", "4", "4 without tokenizer.json"])
@pytest.mark.parametrize("add_prefix_space", [False, True])
def test_add_prefix_space_and_added_tokens_need_no_tokenizer_json(saved, form, add_prefix_space):
    folder = saved(lambda tokenizer: [SAME[name](tokenizer) for name in ("added tokens", "special tokens")], add_prefix_space=add_prefix_space)
    expected = ids_of_the_library(folder)
    if form != "5":
        as_version_4(folder)
    if form.endswith("tokenizer.json"):
        (folder / "tokenizer.json").unlink()
    tokenizer = check_same(folder, expected)
    assert tokenizer.settings.add_prefix_space == add_prefix_space
    starts, ends = tokenizer.word_edges()
    covid = expected[1][expected[1].index(tokenizer.encode("covid")[-1])]
    assert starts[covid] and ends[covid]


@pytest.mark.parametrize("name", REFUSED)
def test_setting_that_is_not_supported_is_refused_by_its_name(saved, name):
    change, message = REFUSED[name]
    folder = saved(change)
    with pytest.raises(DataError, match=message) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value) and str(error.value).startswith(f"{folder}/tokenizer.json: ")


@pytest.mark.parametrize("name", WORDPIECE_SAME)
def test_a_wordpieces_ids_are_those_of_the_library(saved, wordpiece_dir, name):
    settings, change = WORDPIECE_SAME[name]
    settings = {"do_lower_case": True} | settings
    folder = saved(change, wordpiece_dir, **settings)
    expected = ids_of_the_library(folder)
    check_same(folder, expected)
    # The form of version 4 has vocab.txt beside it, without the tokens that were added
    shutil.copy(wordpiece_dir / "vocab.txt", folder)
    check_same(folder, expected)


@pytest.mark.parametrize("name", WORDPIECE_REFUSED)
def test_setting_of_a_wordpiece_that_is_not_supported_is_refused_by_its_name(saved, wordpiece_dir, name):
    change, message = WORDPIECE_REFUSED[name]
    with pytest.raises(DataError, match=message):
        load_tokenizer(saved(change, wordpiece_dir))


@pytest.mark.parametrize(
    "name, value", [("never_split", ["Foo-Bar"]), ("do_basic_tokenize", False), ("word_tokenizer_type", "mecab")]
)
def test_settings_of_slow_tokenizers_are_refused_by_name(wordpiece_dir, tmp_path, name, value):
    shutil.copytree(wordpiece_dir, tmp_path / "slow")
    change_json(tmp_path / "slow" / "tokenizer_config.json", lambda config: config.update({name: value}))
    with pytest.raises(DataError, match=f"tokenizer_config.json: {name} "):
        load_tokenizer(tmp_path / "slow")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# transformers 4.57.6 and 5.24 (RobertaTokenizer, BertTokenizer) follow tokenizer_config.json in these, tokenizers tokenizer.json
@pytest.mark.parametrize(
    "file, change, message",
    [
        ("tokenizer_config.json", lambda c: c.update(add_prefix_space=True), "has add_prefix_space false, tokenizer_config.json .* true"),
        ("tokenizer.json", lambda c: c["pre_tokenizer"].update(add_prefix_space=True), "has add_prefix_space true, .* false"),
        ("tokenizer_config.json", lambda c: c.update(additional_special_tokens=["model"]), "adds the token 'model', tokenizer.json does not"),
        ("vocab.json", lambda c: c.update(model=9), "gives the token 'model' the id None, the files beside it"),
        ("tokenizer.json", lambda c: c["model"]["merges"].pop(), "has other merges than merges.txt"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tokenizer_dir, tmp_path, file, change, message):
    shutil.copytree(tokenizer_dir, tmp_path / "both")
    change_json(tmp_path / "both" / file, change)
    with pytest.raises(DataError, match=message):
        load_tokenizer(tmp_path / "both")


@pytest.mark.parametrize("part", [{"type": "Unheard"}, {"normalizers": [1]}, "Lowercase", {"type": "Split", "pattern": {"Regex": "("}}])
@pytest.mark.parametrize("name", ["normalizer", "pre_tokenizer"])
def test_parts_that_the_library_cannot_read_are_refused_in_one_line(tokenizer_dir, tmp_path, name, part):
    shutil.copytree(tokenizer_dir, tmp_path / "damaged")
    change_json(tmp_path / "damaged" / "tokenizer.json", lambda whole: whole.update({name: part}))
    with pytest.raises(DataError, match="tokenizer.json: tokenizers .* cannot read its normalizer or pre_tokenizer") as error:
        load_tokenizer(tmp_path / "damaged")
    assert "\n" not in str(error.value)


def test_flags_of_an_added_token_that_contradict_each_other_are_refused(saved):
    folder = as_version_4(saved(SAME["added tokens"]))
    change_json(folder / "tokenizer_config.json", lambda c: [t.update(rstrip=True) for t in c["added_tokens_decoder"].values()])
    with pytest.raises(DataError, match="says .*rstrip.* of the added token .*, and libraries differ"):
        load_tokenizer(folder)


def test_do_lower_case_that_contradicts_tokenizer_json_is_refused(wordpiece_dir, tmp_path):
    shutil.copytree(wordpiece_dir, tmp_path / "both")
    change_json(tmp_path / "both" / "tokenizer_config.json", lambda config: config.update(do_lower_case=True))
    with pytest.raises(DataError, match="has do_lower_case false, tokenizer_config.json beside it true"):
        load_tokenizer(tmp_path / "both")


def test_tokenizers_of_other_encoders_are_refused_in_one_line(tokenizer_dir, tmp_path):
    whole = json.loads((tokenizer_dir / "tokenizer.json").read_text())

    def refusal(**files):
        folder = tmp_path / str(len(os.listdir(tmp_path)))
        folder.mkdir()
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content)
        with pytest.raises(DataError) as error:
            load_tokenizer(folder)
        assert "\n" not in str(error.value) and str(folder) in str(error.value)
        return str(error.value)

    unigram = whole | {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0.0]]}}
    assert "SentencePiece's Unigram (as XLM-R, DeBERTa-v2" in refusal(tokenizer__json=json.dumps(unigram))
    assert "sentencepiece.bpe.model: SentencePiece (XLM-R" in refusal(sentencepiece__bpe__model="binary")
    assert "spm.model: SentencePiece (DeBERTa-v2) is not supported" in refusal(spm__model="binary", tokenizer_config__json="{}")
    assert "bpe.codes and vocab.txt are fastBPE's" in refusal(vocab__txt="a 1\n", bpe__codes="a b 1\n")
    names = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    modern = {names.get(token, token): i for token, i in whole["model"]["vocab"].items()}
    modern = whole | {"model": whole["model"] | {"vocab": modern}, "added_tokens": []}
    assert "as ModernBERT and DeBERTa have" in refusal(tokenizer__json=json.dumps(modern))
    # HerBERT: RoBERTa's special tokens, vocab.json and merges.txt, but words that end in </w>
    herbert = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b</w>": 5, "ab</w>": 6, "<mask>": 7}
    assert "its words end in </w>" in refusal(vocab__json=json.dumps(herbert), merges__txt="a b</w>\n")


def test_fairseq_gets_no_tokenizer_with_settings(saved, tmp_path):
    tokenizer = load_tokenizer(saved(lambda tokenizer: None, add_prefix_space=True))
    with pytest.raises(DataError, match="has pre_tokenizer .* which fairseq's GPT-2 BPE does not know"):
        tokenizer.save_for_fairseq(tmp_path)


def test_a_special_token_of_ones_own_is_recognised_in_finetuning_as_in_pretraining(saved):
    folder = saved(SAME["special tokens"])
    text = "the <ent>model</ent> reads </s> and <mask>"
    theirs, ours = read_with_transformers(folder), load_tokenizer(folder)
    keep_added_specials(theirs)
    ids = theirs(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert ids == ours.encode(text)
    assert ours.encode("<ent>")[0] in ids and not ours.is_special(np.array(ids)).any()
