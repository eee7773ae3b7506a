"""Indexed data are megatron-core's to the byte; what is not whole is refused with the way out."""

import numpy as np
import pytest

from robustbert.data.corpus import IndexedCorpus, corpus_file
from robustbert.data.errors import DataError
from robustbert.data.preparation.corpus_writer import CorpusWriter, token_dtype

DOCUMENTS = [[[5, 6, 7], [8]], [[9, 10]], [[11, 12, 13, 14], [15, 16], [17]]]


def test_megatron_reads_what_we_wrote_identically(write_corpus):
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    ours = write_corpus(DOCUMENTS)
    theirs = indexed_dataset.IndexedDataset(str(ours.prefix), mmap=True)
    sentences = [sentence for document in DOCUMENTS for sentence in document]
    assert [theirs[i].tolist() for i in range(len(theirs))] == sentences
    assert [ours.sentence(i).tolist() for i in range(len(ours))] == sentences
    assert theirs.document_indices.tolist() == ours.document_indices.tolist() == [0, 2, 3, 6]
    assert theirs.sequence_lengths.tolist() == ours.sentence_lengths.tolist()
    assert theirs.index.dtype == ours.dtype == np.uint16


def test_we_write_the_bytes_that_megatron_writes(write_corpus, tmp_path):
    indexed_dataset = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    torch = pytest.importorskip("torch")
    ours = write_corpus(DOCUMENTS)
    builder = indexed_dataset.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for document in DOCUMENTS:
        for sentence in document:
            builder.add_item(torch.tensor(sentence))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    for ending in ("bin", "idx"):
        assert (tmp_path / f"theirs.{ending}").read_bytes() == corpus_file(ours.prefix, ending).read_bytes()


def test_ids_take_two_bytes_while_the_vocabulary_fits():
    assert token_dtype(50265) == np.uint16
    assert token_dtype(65_500) == np.int32


def test_counts_offsets_and_manifest_agree(random_corpus):
    corpus = random_corpus()
    np.testing.assert_array_equal(corpus.token_counts(), np.bincount(corpus.tokens, minlength=340))
    ends = np.cumsum(corpus.sentence_lengths)
    np.testing.assert_array_equal(corpus.sentence_ends(0, len(corpus)), ends)
    np.testing.assert_array_equal(corpus.document_ends, ends[corpus.document_indices[1:] - 1])
    assert (corpus.manifest.num_tokens, corpus.manifest.num_documents) == (corpus.num_tokens, corpus.num_documents)
    corpus.verify()


@pytest.mark.parametrize("ending", ["bin", "idx"])
def test_a_cut_off_file_is_refused(write_corpus, ending):
    path = corpus_file(write_corpus(DOCUMENTS).prefix, ending)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=rf"{path.name}: cut off, it has \d+ bytes of \d+; .*--overwrite"):
        IndexedCorpus(path.with_suffix(""))


@pytest.mark.parametrize(("ending", "message"), [("bin", "bin: missing"), ("idx", "idx: missing"), ("json", "or lost its manifest")])
def test_a_missing_file_is_refused(write_corpus, ending, message):
    corpus = write_corpus(DOCUMENTS)
    corpus_file(corpus.prefix, ending).unlink()
    with pytest.raises(DataError, match=message):
        IndexedCorpus(corpus.prefix)


def test_no_corpus_at_all_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such corpus; prepare it with tools/preprocess"):
        IndexedCorpus(tmp_path / "nothing")


def test_another_magic_is_refused(write_corpus):
    path = corpus_file(write_corpus(DOCUMENTS).prefix, "idx")
    path.write_bytes(b"TNTIDX\x00\x00\x00" + path.read_bytes()[9:])
    with pytest.raises(DataError, match="not an index of megatron's format"):
        IndexedCorpus(path.with_suffix(""))


def test_changed_content_of_the_same_size_is_found_by_verify(write_corpus):
    corpus = write_corpus(DOCUMENTS)
    path = corpus_file(corpus.prefix, "bin")
    path.write_bytes(path.read_bytes()[:-2] + b"\x09\x00")
    with pytest.raises(DataError, match="content changed"):
        IndexedCorpus(corpus.prefix).verify()


def test_existing_output_is_not_overwritten_unless_asked(write_corpus, tokenizer, tmp_path):
    before = corpus_file(write_corpus(DOCUMENTS).prefix, "bin").read_bytes()
    with pytest.raises(DataError, match="exists already; pass --overwrite"):
        CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path)
    assert (tmp_path / "corpus.bin").read_bytes() == before
    with CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path, overwrite=True) as writer:
        writer.add_sentences(np.array([4, 5]), np.array([2]))
        assert len(IndexedCorpus(tmp_path / "corpus")) == 6  # the old one counts until the new one is whole
        writer.finish({})
    assert IndexedCorpus(tmp_path / "corpus").num_tokens == 2


def test_a_writer_that_fails_leaves_nothing(tokenizer, tmp_path):
    with pytest.raises(KeyboardInterrupt), CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path) as writer:
        writer.add_sentences(np.array([4, 5]), np.array([2]))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_corpus_do_not_mix(tokenizer, tmp_path):
    with CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path):
        with pytest.raises(DataError, match="another process is writing this corpus"):
            CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path)


def test_a_source_without_text_is_refused(tokenizer, tmp_path):
    with pytest.raises(DataError, match="holds no text"), CorpusWriter(tmp_path / "corpus", tokenizer, tmp_path) as writer:
        writer.begin_document()
        writer.finish({"text": "empty.txt"})
