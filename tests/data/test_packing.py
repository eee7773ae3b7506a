"""FULL-SENTENCES, by hand and by a plain loop; no token lost."""

import numpy as np
import pytest

from robustbert.data.blocks import block_index, packing, sentence_blocks
from robustbert.data.blocks.packing import open_packing
from robustbert.data.corpus import corpus_file
from robustbert.data.errors import DataError

S, E = 0, 2  # <s> and </s>


def blocks_of(corpus, sequence_length, tokenizer):
    packed = open_packing(corpus, "full-sentences", sequence_length, tokenizer)
    return [packed.block(i).tolist() for i in range(len(packed))]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        # whole sentences, as many as fit in 8 - 2 places
        ([[[5, 6, 7], [8, 9, 10], [11]]], [[S, 5, 6, 7, 8, 9, 10, E], [S, 11, E]]),
        ([[[5, 6, 7], [8, 9, 10, 11], [12]]], [[S, 5, 6, 7, E], [S, 8, 9, 10, 11, 12, E]]),
        # one more </s> between documents, which takes a place
        ([[[5, 6]], [[7, 8, 9]]], [[S, 5, 6, E, 7, 8, 9, E]]),
        ([[[5, 6, 7]], [[8, 9, 10]]], [[S, 5, 6, 7, E], [S, 8, 9, 10, E]]),
        ([[[5]], [[6]], [[7]], [[8]]], [[S, 5, E, 6, E, 7, E], [S, 8, E]]),
        # none where a block ends or begins with the document
        ([[[5, 6, 7, 8, 9, 10]], [[11]]], [[S, 5, 6, 7, 8, 9, 10, E], [S, 11, E]]),
        # a sentence longer than a block begins one, fills as many as it needs, and its rest is followed by the next
        (
            [[[5], [6, 7, 8, 9, 10, 11, 12, 13], [14, 15]], [[16]]],
            [[S, 5, E], [S, 6, 7, 8, 9, 10, 11, E], [S, 12, 13, 14, 15, E, 16, E]],
        ),
    ],
)
def test_blocks_are_those_packed_by_hand(write_corpus, tokenizer, documents, expected):
    assert blocks_of(write_corpus(documents), 8, tokenizer) == expected


def packed_by_a_loop(corpus, sequence_length):
    blocks, block = [], []
    ends = set(corpus.document_indices.tolist())
    capacity = sequence_length - 2

    def close():
        nonlocal block
        if block:
            blocks.append([S, *block, E])
        block = []

    for index in range(len(corpus)):
        sentence = corpus.sentence(index).tolist()
        separator = [E] if index in ends and block else []
        while len(sentence) > capacity:
            close()
            block, sentence, separator = sentence[:capacity], sentence[capacity:], []
            close()
        if len(block) + len(separator) + len(sentence) > capacity:
            close()
            separator = []
        block += separator + sentence
    close()
    return blocks


@pytest.mark.parametrize("sequence_length", [3, 8, 32, 128])
@pytest.mark.parametrize("window", [129, 1 << 20])
def test_blocks_are_those_of_a_plain_loop(random_corpus, tokenizer, monkeypatch, sequence_length, window):
    monkeypatch.setattr(sentence_blocks, "_WINDOW", window)
    corpus = random_corpus()
    blocks = blocks_of(corpus, sequence_length, tokenizer)
    assert blocks == packed_by_a_loop(corpus, sequence_length)
    assert max(map(len, blocks)) <= sequence_length
    assert [i for block in blocks for i in block if i not in (S, E)] == corpus.tokens.tolist()


def test_blocks_of_a_batch_are_padded_rows_of_single_blocks(random_corpus, tokenizer):
    packed = open_packing(random_corpus(), "full-sentences", 64, tokenizer)
    indices = np.array([5, 0, len(packed) - 1, 5])
    tokens_BS, lengths_B = packed.blocks(indices)
    assert tokens_BS.shape == (4, 64) and tokens_BS.dtype == np.int64
    for row, length, index in zip(tokens_BS, lengths_B, indices):
        np.testing.assert_array_equal(row[:length], packed.block(index))
        assert (row[length:] == tokenizer.pad_id).all()


def test_stored_blocks_are_used_and_stale_or_damaged_ones_built_again(random_corpus, tokenizer, monkeypatch):
    corpus = random_corpus(seed=1, name="one")
    other = random_corpus(seed=2, name="two")
    path = corpus_file(corpus.prefix, "full-sentences-64.npy")
    first = blocks_of(corpus, 64, tokenizer)
    monkeypatch.setitem(packing._BUILDERS, "full-sentences", lambda *_: pytest.fail("built again"))
    assert blocks_of(corpus, 64, tokenizer) == first
    monkeypatch.undo()
    expected = blocks_of(other, 64, tokenizer)
    stale = path.read_bytes()
    for content in (stale, stale[:-8], stale[:10], b""):
        corpus_file(other.prefix, "full-sentences-64.npy").write_bytes(content)
        assert blocks_of(other, 64, tokenizer) == expected
    assert not list(path.parent.glob("*.partial"))


def test_a_folder_that_is_not_writable_does_not_stop_a_run(random_corpus, tokenizer, monkeypatch):
    def refuse(*_):
        raise PermissionError

    corpus = random_corpus()
    monkeypatch.setattr(block_index.os, "replace", refuse)
    assert len(blocks_of(corpus, 64, tokenizer)) > 0
    assert not list(corpus.prefix.parent.glob("*.npy*partial"))


def test_an_unknown_format_is_refused(random_corpus, tokenizer):
    with pytest.raises(DataError, match="use full-sentences"):
        open_packing(random_corpus(), "half-sentences", 64, tokenizer)
