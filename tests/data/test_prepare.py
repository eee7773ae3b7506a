"""Raw text becomes the same bytes on any number of workers; what is whole is kept, what is not is refused."""

import dataclasses
import math

import numpy as np
import pytest

from robustbert.config.sections import CorpusConfig, DataConfig, TokenizerSource, TrainTokenizerConfig
from robustbert.data import prepare
from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError, OtherData
from robustbert.data.preparation import indexing
from robustbert.data.preparation.indexing import prepare_corpus
from robustbert.data.prepare import PreparedData, check_sources, prepare_run, prepared_data, unigram_perplexity
from robustbert.data.text.readers import find_source
from tests.data.conftest import make_text

FILES = ("bin", "idx", "counts.npy", "json")


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(make_text(300, seed=3))
    return path


def config_of(text_file, tokenizer=TokenizerSource(TrainTokenizerConfig(330)), **options):
    options = {"valid_fraction": 0.1, "sequence_length": 32, "prepare_workers": 1} | options
    return DataConfig(tokenizer, (CorpusConfig(text=str(text_file)),), **options)


def content_of(prefix):
    return [corpus_file(prefix, ending).read_bytes() for ending in FILES]


def test_output_bytes_are_equal_for_one_and_three_workers(text_file, tokenizer, tokenizer_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_MIN_BYTES_PER_WORKER", 1)
    monkeypatch.setattr(indexing, "_CHUNK_CHARS", 20_000)
    sources = [find_source(str(text_file)), find_source(str(text_file))]
    for num_workers in (1, 3):
        folder = tmp_path / str(num_workers)
        prepare_corpus(
            sources,
            tokenizer,
            tokenizer_dir,
            folder / "train",
            num_workers,
            held_out_prefix=folder / "valid",
            valid_fraction=0.2,
        )
    for name in ("train", "valid"):
        assert content_of(tmp_path / "1" / name) == content_of(tmp_path / "3" / name)


def test_a_corpus_holds_the_text_sentence_by_sentence_and_document_by_document(text_file, tokenizer, tokenizer_dir, tmp_path):
    prepare_corpus([find_source(str(text_file))], tokenizer, tokenizer_dir, tmp_path / "corpus")
    corpus = IndexedCorpus(tmp_path / "corpus")
    documents = text_file.read_text().strip().split("\n\n\n")
    assert corpus.num_documents == len(documents)
    bounds = corpus.document_indices
    for number in (0, 17, len(documents) - 1):
        paragraphs = [" ".join(paragraph.split()) for paragraph in documents[number].split("\n\n")]
        sentences = [tokenizer.decode(corpus.sentence(i)) for i in range(bounds[number], bounds[number + 1])]
        assert "".join(sentences) == "".join(paragraphs)


def test_held_out_and_training_text_together_are_all_of_it(text_file, tokenizer, tokenizer_dir, tmp_path):
    source = [find_source(str(text_file))]
    whole = prepare_corpus(source, tokenizer, tokenizer_dir, tmp_path / "all")[0]
    parts = prepare_corpus(
        source, tokenizer, tokenizer_dir, tmp_path / "train", held_out_prefix=tmp_path / "valid", valid_fraction=0.1
    )
    assert sum(part.num_tokens for part in parts) == whole.num_tokens
    assert 0.08 < parts[1].num_tokens / whole.num_tokens < 0.12


def test_prepare_run_prepares_what_prepared_data_finds(text_file, tmp_path):
    config = config_of(text_file)
    seen = []
    prepared = prepare_run(config, tmp_path / "data", progress=lambda *event: seen.append(event))
    assert prepared == prepared_data(config, tmp_path / "data")
    assert prepared.vocab_size == 330
    assert [corpus.prefix.name for corpus in (*prepared.train, *prepared.valid)] == ["train_0000", "valid_0000"]
    assert (tmp_path / "data" / "train_0000.full-sentences-32.npy").exists()
    assert {name for name, _, _ in seen} == {"tokenizer", "train_0000"}
    assert all(done == total for name, done, total in (seen[-1],))


def test_preparing_again_keeps_what_is_whole_and_makes_the_rest(text_file, tmp_path, monkeypatch):
    config, data_dir = config_of(text_file), tmp_path / "data"
    prepare_run(config, data_dir)
    before = content_of(data_dir / "train_0000")
    monkeypatch.setattr(prepare, "train_tokenizer", lambda *_: pytest.fail("trained again"))
    with monkeypatch.context() as again:
        again.setattr(prepare, "prepare_corpus", lambda *_, **__: pytest.fail("prepared again"))
        prepare_run(config, data_dir)
    corpus_file(data_dir / "valid_0000", "json").unlink()
    with pytest.raises(DataError, match="or lost its manifest"):
        prepared_data(config, data_dir)
    prepare_run(config, data_dir)
    assert content_of(data_dir / "train_0000") == before


def test_changed_text_is_prepared_again(text_file, tmp_path):
    config = config_of(text_file)
    before = IndexedCorpus(prepare_run(config, tmp_path / "data").train[0].prefix).num_tokens
    text_file.write_text(text_file.read_text() + "\n\n\n" + make_text(100, seed=9))
    assert IndexedCorpus(prepare_run(config, tmp_path / "data").train[0].prefix).num_tokens > before


def test_two_trainings_on_the_same_text_give_the_same_data(text_file, tmp_path):
    config = config_of(text_file)
    first, second = (prepare_run(config, tmp_path / name) for name in ("one", "two"))
    assert content_of(first.train[0].prefix) == content_of(second.train[0].prefix)


def test_raw_and_indexed_corpora_go_together(text_file, tokenizer, tokenizer_dir, tmp_path):
    prepare_corpus([find_source(str(text_file))], tokenizer, tokenizer_dir, tmp_path / "indexed")
    indexed, raw = CorpusConfig(path=str(tmp_path / "indexed"), weight=2), CorpusConfig(text=str(text_file), weight=1)
    config = DataConfig(str(tokenizer_dir), train=(indexed, raw), valid=(raw,), sequence_length=32)
    prepared = prepare_run(config, tmp_path / "data")
    assert [(c.prefix.name, c.weight) for c in prepared.train] == [("indexed", 2), ("train_0001", 1)]
    assert [c.prefix.name for c in prepared.valid] == ["valid_0000"]


def test_a_corpus_of_another_tokenizer_is_refused_before_anything_is_created(text_file, tokenizer, tokenizer_dir, tmp_path):
    other = prepare_run(config_of(text_file), tmp_path / "other")
    config = DataConfig(str(tokenizer_dir), train=(CorpusConfig(path=str(other.train[0].prefix)),), sequence_length=32)
    for action in (check_sources, lambda config: prepare_run(config, tmp_path / "data")):
        with pytest.raises(DataError, match=r"other/tokenizer \(330 ids\), the run's is .*small"):
            action(config)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": (CorpusConfig(text="nowhere.txt"),)}, "nowhere.txt: no such file"),
        ({"train": (CorpusConfig(path="nowhere"),), "valid_fraction": 0.0}, "no such corpus"),
        ({"tokenizer": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_missing_data_is_refused_before_anything_is_created(text_file, tokenizer_dir, tmp_path, change, message):
    config = dataclasses.replace(config_of(text_file, str(tokenizer_dir)), **change)
    with pytest.raises(DataError, match=message):
        prepare_run(config, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_weights_for_some_corpora_only_are_refused(text_file, tokenizer_dir):
    train = CorpusConfig(text=str(text_file), weight=1), CorpusConfig(text=str(text_file))
    with pytest.raises(DataError, match=r"corpora \[1\] have no weight"):
        check_sources(DataConfig(str(tokenizer_dir), train, sequence_length=32))


def test_unigram_perplexity_is_that_of_a_count_by_hand(write_corpus, tokenizer, tokenizer_dir):
    train, valid = write_corpus([[[5, 5, 5, 6]]], "train"), write_corpus([[[5, 7]]], "valid")
    entries = [(prepare.PreparedCorpus(corpus.prefix),) for corpus in (train, valid)]
    total = 4 + tokenizer.vocab_size
    expected = math.exp(-(math.log(4 / total) + math.log(1 / total)) / 2)
    assert np.isclose(unigram_perplexity(PreparedData(tokenizer_dir, 340, *entries)), expected)


def test_unigram_perplexity_needs_held_out_text(write_corpus):
    train = (prepare.PreparedCorpus(write_corpus([[[5]]]).prefix),)
    with pytest.raises(DataError, match="no text is held out"):
        unigram_perplexity(PreparedData(train[0].prefix, 340, train, ()))


@pytest.mark.slow
def test_the_prose_inside_python_is_enough_for_the_quickstart(tmp_path):
    source = TokenizerSource(TrainTokenizerConfig(4096))
    config = DataConfig(source, (CorpusConfig(text="python:stdlib"),), valid_fraction=0.03, sequence_length=128)
    prepared = prepare_run(config, tmp_path / "data")
    train, valid = IndexedCorpus(prepared.train[0].prefix), IndexedCorpus(prepared.valid[0].prefix)
    assert train.num_tokens > 400_000
    assert 0.025 < valid.num_tokens / (train.num_tokens + valid.num_tokens) < 0.035
    assert 300 < unigram_perplexity(prepared) < 3000


def test_data_made_with_another_layout_or_field_is_another_text(tmp_path):
    (tmp_path / "a.txt").write_text("Once upon a time.\n\nTwo of them.\n" * 20)
    (tmp_path / "b.jsonl").write_text('{"content": "A document.", "title": "Another one."}\n' * 20)

    def config(documents, field):
        plain = CorpusConfig(text=str(tmp_path / "a.txt"), documents=documents)
        lines = CorpusConfig(text=str(tmp_path / "b.jsonl"), text_field=field)
        return DataConfig(TokenizerSource(TrainTokenizerConfig(280)), (plain, lines), sequence_length=16, prepare_workers=1)

    prepare_run(config("blank-line", "content"), tmp_path / "data")
    prepared_data(config(None, "content"), tmp_path / "data")  # found, or as it was: what is there counts
    with pytest.raises(OtherData, match="was made of .*a.txt with documents: blank-line .* names .*a.txt with documents: line"):
        prepared_data(config("line", "content"), tmp_path / "data")
    with pytest.raises(OtherData, match="from the field content .* from the field title"):
        prepared_data(config("blank-line", "title"), tmp_path / "data")
