"""DOC-SENTENCES, SEGMENT-PAIR and SENTENCE-PAIR by hand; what holds for every corpus, of FULL-SENTENCES too."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from robustbert.data.blocks import packing, segments
from robustbert.data.blocks.packing import open_packing
from robustbert.data.blocks.segments import cut_segment_pairs, cut_sentence_pairs, first_rooms
from robustbert.data.errors import DataError
from tests.data.memory_corpus import MemoryCorpus

S, E, PAD = 0, 2, 1
KEY = 77

DOCUMENTS = st.lists(
    st.lists(st.one_of(st.integers(0, 12), st.integers(0, 60)), max_size=12), min_size=1, max_size=12
).filter(lambda documents: sum(map(sum, documents)) > 0)


def rows_of(packed, epoch=0, blocks=None):
    blocks = np.arange(len(packed)) if blocks is None else blocks
    epochs = np.full(len(blocks), epoch)
    rows = packed.rows(blocks, epochs, KEY, packed.sequence_length)
    np.testing.assert_array_equal(rows.lengths_N, packed.lengths(blocks, epochs, KEY))
    assert rows.lengths_N.max() <= packed.sequence_length
    assert (rows.tokens_NS == PAD).sum() == rows.tokens_NS.size - rows.lengths_N.sum()
    return rows


def segments_of(tokens_S, types_S, length):
    """The two segments of a row <s> A </s> </s> B </s>, with its form checked."""
    middle = int(np.flatnonzero(types_S)[0])
    assert tokens_S[0] == S and tokens_S[middle - 1] == tokens_S[middle] == tokens_S[length - 1] == E
    assert types_S[middle:length].all() and not types_S[:middle].any() and not types_S[length:].any()
    return tokens_S[1 : middle - 1].tolist(), tokens_S[middle + 1 : length - 1].tolist()


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        # whole sentences, and a block ends with its document
        ([[3, 3, 1], [2]], [[4, 5, 6, 7, 8, 9], [10], [11, 12]]),
        # documents without a token leave no trace
        ([[], [2], [0, 0], [2, 0, 1], []], [[4, 5], [6, 7, 8]]),
        # a sentence longer than a block begins one; its rest shares one with the next sentence, not with the next document
        ([[1, 8, 2], [1]], [[4], [5, 6, 7, 8, 9, 10], [11, 12, 13, 14], [15]]),
        ([[14], [1]], [[4, 5, 6, 7, 8, 9], [10, 11, 12, 13, 14, 15], [16, 17], [18]]),
    ],
)
def test_doc_sentences_are_those_packed_by_hand(tokenizer, documents, expected):
    packed = open_packing(MemoryCorpus(documents), "doc-sentences", 8, tokenizer)
    assert [packed.block(i).tolist() for i in range(len(packed))] == [[S, *block, E] for block in expected]


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        # cut at a sentence, about in the middle
        ([[2, 3, 2, 1]], [(0, 2, 8)]),
        # as many sentences as fit 6 places, and as many again
        ([[4, 4, 4, 4]], [(0, 4, 8), (8, 12, 16)]),
        # the last but one stays with the last
        ([[5, 2, 3, 5]], [(0, 5, 7), (7, 10, 15)]),
        # one sentence is left: it is cut
        ([[4, 4, 4]], [(0, 4, 8), (8, 10, 12)]),
        # a sentence longer than both segments
        ([[20]], [(0, 6, 12), (12, 16, 20)]),
        # an empty document, one of a single sentence, one of a single token, which is left out
        ([[3, 3], [], [0], [4], [1], [1, 1]], [(0, 3, 6), (6, 8, 10), (11, 12, 13)]),
    ],
)
def test_segments_are_those_cut_by_hand(documents, expected):
    pairs = cut_segment_pairs(MemoryCorpus(documents), 12, np.array([6]))
    assert list(zip(*(array.tolist() for array in pairs[:3]))) == expected


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([[2, 3, 4, 5]], [(0, 2, 5), (5, 9, 14)]),
        # an odd one comes with the one before it; a document of one sentence has no pair
        ([[2, 3, 4], [5], [1, 1]], [(0, 2, 5), (2, 5, 9), (14, 15, 16)]),
        # sentences and documents without a token leave no trace; a sentence longer than 6 counts as several
        ([[2, 0, 3], [], [0], [8]], [(0, 2, 5), (5, 11, 13)]),
    ],
)
def test_sentence_pairs_are_those_made_by_hand(documents, expected):
    pairs = cut_sentence_pairs(MemoryCorpus(documents), 12)
    assert list(zip(*(array.tolist() for array in pairs[:3]))) == expected


def test_a_pairs_row_is_as_written_by_hand(tokenizer):
    packed = open_packing(MemoryCorpus([[2, 3], [1, 2], [2, 2], [1, 1]]), "sentence-pair", 16, tokenizer)
    rows = rows_of(packed)
    own = {0: ([4, 5], [6, 7, 8]), 1: ([9], [10, 11]), 2: ([12, 13], [14, 15]), 3: ([16], [17])}
    seconds = packed.seconds(np.arange(4), np.zeros(4, int), KEY)
    assert rows.is_next_N.sum() == 2
    for i in range(4):
        first, second = own[i][0], own[seconds[i]][1]
        expected = [S, *first, E, E, *second, E]
        assert rows.tokens_NS[i].tolist() == expected + [PAD] * (16 - len(expected))
        types = [0] * (len(first) + 2) + [1] * (len(second) + 2)
        assert rows.token_types_NS[i].tolist() == types + [0] * (16 - len(expected))
        assert rows.is_next_N[i] == (seconds[i] == i)


@given(DOCUMENTS, st.integers(3, 40))
@settings(max_examples=200, deadline=None)
def test_full_sentences_lose_and_double_nothing_and_part_documents(tokenizer, documents, sequence_length):
    corpus = MemoryCorpus(documents)
    rows = rows_of(open_packing(corpus, "full-sentences", sequence_length, tokenizer))
    blocks = [row[1 : length - 1].tolist() for row, length in zip(rows.tokens_NS, rows.lengths_N)]
    assert [token for block in blocks for token in block if token != E] == corpus.tokens.tolist()
    for block in blocks:
        before = last = None
        for token in block:  # a separator stands where the document changes, and nowhere else
            if token == E:
                assert before not in (None, E)
            elif before is not None:
                changes = corpus.document_of(token) != corpus.document_of(last)
                assert changes == (before == E)
            before, last = token, token if token != E else last
        assert block[-1] != E


@given(DOCUMENTS, st.integers(3, 40))
@settings(max_examples=200, deadline=None)
def test_doc_sentences_lose_and_double_nothing_and_never_cross(tokenizer, documents, sequence_length):
    corpus = MemoryCorpus(documents)
    packed = open_packing(corpus, "doc-sentences", sequence_length, tokenizer)
    rows = rows_of(packed)
    blocks = [row[1 : length - 1].tolist() for row, length in zip(rows.tokens_NS, rows.lengths_N)]
    assert [token for block in blocks for token in block] == corpus.tokens.tolist()
    for block in blocks:
        assert corpus.document_of(block[0]) == corpus.document_of(block[-1])
    assert packed.sizes.num_tokens == rows.lengths_N.sum()
    full = open_packing(corpus, "full-sentences", sequence_length, tokenizer)
    assert (packed.sizes.num_full_blocks, packed.sizes.num_full_tokens) == (len(full), rows_of(full).lengths_N.sum())


@given(DOCUMENTS, st.integers(8, 40), st.sampled_from(["segment-pair", "sentence-pair"]), st.integers(0, 5), st.booleans())
@settings(max_examples=300, deadline=None)
def test_pairs_lose_and_double_nothing_and_come_from_where_the_label_says(
    tokenizer, documents, sequence_length, packing_format, epoch, has_levels
):
    corpus = MemoryCorpus(documents)
    with pytest.MonkeyPatch.context() as patch:
        if has_levels:
            patch.setattr(segments, "_MIN_SEGMENT_ROOM", 2)
            patch.setattr("robustbert.data.blocks.pairs._MIN_BLOCKS_PER_LEVEL", 0)
        try:
            packed = open_packing(corpus, packing_format, sequence_length, tokenizer)
        except DataError as error:
            assert "comes from another document" in str(error)
            assume(False)
    rows = rows_of(packed, epoch)
    seen, by_document = Counter(), Counter()
    num_blocks = len(packed)
    for tokens_S, types_S, length, is_next in zip(rows.tokens_NS, rows.token_types_NS, rows.lengths_N, rows.is_next_N):
        first, second = segments_of(tokens_S, types_S, length)
        assert first and second
        for segment in (first, second):
            assert segment == list(range(segment[0], segment[-1] + 1))  # contiguous text
            assert corpus.document_of(segment[0]) == corpus.document_of(segment[-1])
        is_same = corpus.document_of(first[0]) == corpus.document_of(second[0])
        assert is_same == bool(is_next)
        assert not is_next or second[0] == first[-1] + 1
        seen.update(first + second)
        by_document[corpus.document_of(first[0])] += 1
    # Half of the blocks keep both segments; one of each level may be left without a partner.
    num_levels = len(packed._level_starts) - 1
    assert 0 <= 2 * rows.is_next_N.sum() - num_blocks <= num_levels
    # The same tokens in every epoch, unless one document has about half of the pairs.
    if packed._num_classes[0] == 0:
        assert num_blocks // 2 < 2 * (max(by_document.values()) // 2 + 1)
    elif packing_format == "segment-pair":
        left_out = set(corpus.tokens.tolist()) - set(seen)
        assert max(seen.values()) == 1
        assert len(left_out) <= len(documents)  # a token alone at a document's end
    else:
        # Sentences count as several where they are longer than half of the room.
        room = (sequence_length - 4) // 2
        pieces = [sum(-(-length // room) for length in document) for document in documents]
        expected = Counter()
        for document, num_pieces in enumerate(pieces):
            start = 0 if document == 0 else int(corpus.document_ends[document - 1])
            if num_pieces >= 2:
                expected.update(range(4 + start, 4 + int(corpus.document_ends[document])))
        assert seen.keys() == expected.keys()
        assert max(seen.values()) <= 2


def test_partners_change_with_the_epoch_and_the_key_and_are_spread(tokenizer):
    corpus = MemoryCorpus([[5] * 20] * 400)
    packed = open_packing(corpus, "sentence-pair", 16, tokenizer)
    blocks = np.arange(len(packed))
    seconds = [packed.seconds(blocks, np.full(len(blocks), epoch), key) for epoch, key in ((0, 1), (1, 1), (0, 2))]
    for one in seconds:
        assert sorted(one.tolist()) == blocks.tolist()
        moved = one != blocks
        assert moved.sum() == len(blocks) // 2
        distances = (one - blocks)[moved] % len(blocks)
        assert len(np.unique(distances)) > 100
        assert abs(np.mean(distances / len(blocks)) - 0.5) < 0.1
    assert (seconds[0] == seconds[1]).mean() < 0.3 and (seconds[0] == seconds[2]).mean() < 0.3
    # A block's answer does not depend on what else is asked.
    some = np.array([17, 3, 1000])
    np.testing.assert_array_equal(packed.seconds(some, np.zeros(3, int), 1), seconds[0][some])


def test_segments_of_long_blocks_are_cut_at_several_places_and_all_levels_exchange(tokenizer):
    rng = np.random.default_rng(0)
    corpus = MemoryCorpus([rng.integers(3, 50, rng.integers(10, 60)).tolist() for _ in range(600)])
    packed = open_packing(corpus, "segment-pair", 512, tokenizer)
    assert len(packed._level_starts) - 1 == len(first_rooms(508)) == 7
    rows = rows_of(packed)
    assert abs(rows.is_next_N.mean() - 0.5) < 0.01
    assert (rows.lengths_N.sum(), len(packed)) == (packed.sizes.num_tokens, packed.sizes.num_blocks)
    shares = (rows.token_types_NS == 0).argmin(axis=1) / rows.lengths_N
    assert np.quantile(shares, 0.1) < 0.3 and np.quantile(shares, 0.9) > 0.7


def test_a_document_that_has_most_of_the_text_gets_its_negatives_from_the_others(tokenizer):
    packed = open_packing(MemoryCorpus([[5] * 200, [5, 5], [5] * 6]), "sentence-pair", 16, tokenizer)
    for epoch in range(5):
        rows = rows_of(packed, epoch)
        assert rows.is_next_N.sum() == len(packed) // 2
    seconds = np.concatenate([packed.seconds(np.arange(100), np.full(100, epoch), KEY) for epoch in range(20)])
    others = Counter(seconds[seconds >= 100].tolist())
    assert set(others) == {100, 101, 102, 103} and min(others.values()) > 150


@pytest.mark.parametrize("packing_format", ["segment-pair", "sentence-pair"])
def test_a_corpus_of_one_document_is_refused_with_the_way_out(tokenizer, packing_format):
    with pytest.raises(DataError, match="add documents.*full-sentences or doc-sentences") as error:
        open_packing(MemoryCorpus([[5, 5, 5, 5]]), packing_format, 16, tokenizer)
    assert "\n" not in str(error.value)


def test_stored_pairs_are_read_as_they_were_built(random_corpus, tokenizer, monkeypatch):
    corpus = random_corpus()
    for packing_format in ("doc-sentences", "segment-pair", "sentence-pair"):
        built = rows_of(open_packing(corpus, packing_format, 64, tokenizer), epoch=2)
        monkeypatch.setitem(packing._BUILDERS, packing_format, lambda *_: pytest.fail("built again"))
        stored = rows_of(open_packing(corpus, packing_format, 64, tokenizer), epoch=2)
        for one, other in zip(built, stored):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("packing_format", ["doc-sentences", "segment-pair", "sentence-pair"])
def test_blocks_do_not_depend_on_the_builders_window(random_corpus, tokenizer, monkeypatch, packing_format):
    expected = rows_of(open_packing(random_corpus(name="one"), packing_format, 64, tokenizer))
    for module in ("segments", "sentence_blocks"):
        monkeypatch.setattr(f"robustbert.data.blocks.{module}._WINDOW", 129)
    for one, other in zip(expected, rows_of(open_packing(random_corpus(name="two"), packing_format, 64, tokenizer))):
        np.testing.assert_array_equal(one, other)
