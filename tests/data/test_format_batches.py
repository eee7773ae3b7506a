"""Batches of the formats with shorter samples: the token budget, widths, filler rows, labels, static masks."""

from collections import Counter

import numpy as np
import pytest
import torch

from robustbert.config import CorpusConfig, DataConfig, MaskingConfig, TrainConfig
from robustbert.data.batches import build_train_batches, build_valid_batches
from robustbert.data.prepare import PreparedCorpus, PreparedData

FORMATS = ("full-sentences", "doc-sentences", "segment-pair", "sentence-pair")
SHORTER = FORMATS[1:]
PAIRS = FORMATS[2:]
SEQUENCE_LENGTH = 64
TRAIN = TrainConfig(global_batch_size=16, micro_batch_size=4, eval_sequences=61)


@pytest.fixture
def prepared(random_corpus, tokenizer, tokenizer_dir):
    corpora = [random_corpus(40, seed=1, name="one"), random_corpus(30, seed=2, name="two")]
    entries = tuple(PreparedCorpus(corpus.prefix, weight) for corpus, weight in zip(corpora, (1.0, 2.0)))
    return PreparedData(tokenizer_dir, tokenizer.vocab_size, train=entries, valid=entries[1:])


@pytest.fixture
def make_batches(prepared):
    made = []

    def make(packing_format, rank=0, size=1, num_workers=0, train=TRAIN, build=build_train_batches, **options):
        corpora = (CorpusConfig(path="unused"),)
        config = DataConfig("unused", corpora, format=packing_format, sequence_length=64, num_workers=num_workers, **options)
        made.append(build(prepared, config, train, 7, rank, size))
        return made[-1]

    yield make
    for batches in made:
        if hasattr(batches, "close"):
            batches.close()


def rows_of(micro_batches):
    """Each row without its padding: (inputs, positions, targets, token types, label)."""
    rows = []
    for batch in micro_batches:
        num_rows, width = batch.tokens_BS.shape
        attended = torch.ones(num_rows, width, dtype=bool) if batch.attended_BS is None else batch.attended_BS
        assert (batch.tokens_BS[~attended] == 1).all()
        for b in range(num_rows):
            here = batch.masked_positions_M // width == b
            rows.append(
                (
                    tuple(batch.tokens_BS[b, attended[b]].tolist()),
                    tuple((batch.masked_positions_M[here] - b * width).tolist()),
                    tuple(batch.targets_M[here].tolist()),
                    None if batch.token_types_BS is None else tuple(batch.token_types_BS[b, attended[b]].tolist()),
                    None if batch.is_next_B is None else int(batch.is_next_B[b]),
                )
            )
    return rows


def is_filler(row):
    return row[0] == (0, 2)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("packing_format", FORMATS)
def test_batches_do_not_depend_on_ranks_or_workers(make_batches, packing_format, num_workers):
    expected = make_batches(packing_format)
    sharded = {size: [make_batches(packing_format, rank, size, num_workers) for rank in range(size)] for size in (1, 2, 4)}
    for step in (0, 1, 2, 50, 51):
        whole = expected.micro_batches(step)
        rows = [row for row in rows_of(whole) if not is_filler(row)]
        assert len(rows) == expected.samples_per_step
        for size, ranks in sharded.items():
            by_rank = [batches.micro_batches(step) for batches in ranks]
            assert {len(micro_batches) for micro_batches in by_rank} == {ranks[0].num_micro_batches}
            interleaved = [batch for passed in zip(*by_rank) for batch in passed]
            assert [row for row in rows_of(interleaved) if not is_filler(row)] == rows
            assert len(interleaved) == len(whole)  # dropout is drawn for each of them
            for one, other in zip(whole, interleaved):
                assert torch.equal(one.tokens_BS, other.tokens_BS)


@pytest.mark.parametrize("packing_format", SHORTER)
@pytest.mark.parametrize("global_batch_size, micro_batch_size", [(64, 32), (64, 8), (60, 15), (4, 1)])
def test_the_samples_of_a_step_are_spread_evenly(make_batches, packing_format, global_batch_size, micro_batch_size):
    batches = make_batches(packing_format, train=TrainConfig(global_batch_size=global_batch_size, micro_batch_size=micro_batch_size))
    micro_batches = batches.micro_batches(1)
    num_rows = [batch.tokens_BS.shape[0] for batch in micro_batches]
    assert sum(num_rows) == batches.samples_per_step and not any(map(is_filler, rows_of(micro_batches)))
    assert max(num_rows) <= micro_batch_size and max(num_rows) - min(num_rows) <= 1
    assert len(num_rows) % (global_batch_size // micro_batch_size) == 0  # on any number of ranks each has as many


def test_a_step_with_fewer_samples_than_micro_batches_has_filler(make_batches):
    batches = make_batches("sentence-pair", train=TrainConfig(global_batch_size=4, micro_batch_size=1))
    shared = (batches._blocks, batches._sampler, 5, 8)
    ranks = [type(batches)(*shared, rank, 4, 0, []).micro_batches(0) for rank in range(4)]
    assert [len(micro_batches) for micro_batches in ranks] == [2, 2, 2, 2]
    fillers = [row for micro_batches in ranks for row in rows_of(micro_batches) if is_filler(row)]
    assert len(fillers) == 3 and all(row[1] == () and row[4] == -1 for row in fillers)


@pytest.mark.parametrize("packing_format", SHORTER)
def test_a_step_carries_the_tokens_of_full_sentences(make_batches, packing_format):
    def tokens_a_step(packing_format):
        batches = make_batches(packing_format, train=TrainConfig(global_batch_size=200, micro_batch_size=8))
        return np.mean([sum(b.num_real_tokens for b in batches.micro_batches(step)) for step in range(8)])

    assert abs(tokens_a_step(packing_format) / tokens_a_step("full-sentences") - 1) < 0.06


@pytest.mark.parametrize("packing_format", SHORTER)
def test_a_micro_batch_is_as_wide_as_its_longest_row_and_little_is_padding(make_batches, packing_format):
    batches = make_batches(packing_format, train=TrainConfig(global_batch_size=64, micro_batch_size=8))
    micro_batches = batches.micro_batches(3)
    for batch in micro_batches:
        real = (batch.tokens_BS != 1).sum(1)
        width = batch.tokens_BS.shape[1]
        assert width == min(SEQUENCE_LENGTH, -(-int(real.max()) // 16) * 16)
        filler = 2 * sum(is_filler(row) for row in rows_of([batch]))
        assert batch.num_real_tokens == int(real.sum()) - filler
        assert batch.tokens_BS.is_contiguous()
    widths = [batch.tokens_BS.shape[1] for batch in micro_batches]
    assert widths == sorted(widths) and len(set(widths)) > 1
    fine = make_batches(packing_format, pad_to_multiple=2, train=TrainConfig(global_batch_size=64, micro_batch_size=8))
    fine = fine.micro_batches(3)
    assert rows_of(fine) == rows_of(micro_batches)  # masks do not depend on the padding
    padding = 1 - sum(b.num_real_tokens for b in fine) / sum(b.tokens_BS.numel() for b in fine)
    assert padding < 0.08


@pytest.mark.parametrize("packing_format", FORMATS)
def test_only_pairs_have_token_types_and_labels(make_batches, packing_format):
    batches = make_batches(packing_format)
    micro_batches = [batch for step in range(40) for batch in batches.micro_batches(step)]
    if packing_format not in PAIRS:
        assert all(batch.token_types_BS is None and batch.is_next_B is None for batch in micro_batches)
        return
    labels = torch.cat([batch.is_next_B for batch in micro_batches]).tolist()
    for label, row in zip(labels, rows_of(micro_batches)):
        assert (label == -1) == is_filler(row)
    counts = Counter(labels)
    assert abs(counts[1] / (counts[0] + counts[1]) - 0.5) < 0.04
    first = micro_batches[0]
    assert first.token_types_BS.dtype == first.is_next_B.dtype == torch.int64
    assert first.token_types_BS.shape == first.tokens_BS.shape


def test_a_pair_is_the_same_text_whatever_is_masked(make_batches):
    """The label, the types and the positions of the predictions belong together."""
    for batch in make_batches("segment-pair").micro_batches(1):
        whole = batch.tokens_BS.flatten().clone()
        whole[batch.masked_positions_M] = batch.targets_M
        for tokens, types, label in zip(whole.view_as(batch.tokens_BS), batch.token_types_BS, batch.is_next_B):
            if label >= 0:
                assert (tokens == 2).sum() == 3
                assert tokens[int(types.argmax())] == tokens[int(types.argmax()) - 1] == 2


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("packing_format", SHORTER)
def test_held_out_batches_are_the_same_on_any_number_of_ranks(make_batches, packing_format, size):
    expected = make_batches(packing_format, build=build_valid_batches)
    rows = [row for row in rows_of(expected) if not is_filler(row)]
    assert len(rows) == expected.num_sequences == TRAIN.eval_sequences
    ranks = [make_batches(packing_format, rank, size, build=build_valid_batches) for rank in range(size)]
    by_rank = [list(batches) for batches in ranks]
    assert {len(batches) for batches in by_rank} == {len(ranks[0])}
    interleaved = [batch for passed in zip(*by_rank) for batch in passed]
    assert {batch.tokens_BS.shape[0] for batch in interleaved} == {4}
    assert [row for row in rows_of(interleaved) if not is_filler(row)] == rows


@pytest.mark.parametrize("packing_format", ["full-sentences", "segment-pair"])
def test_over_forty_epochs_each_of_ten_static_masks_is_seen_four_times(
    prepared, tokenizer_dir, tokenizer, write_corpus, packing_format
):
    documents = [[[10 * d + s + 5] * 9 for s in range(8)] for d in range(6)]
    corpus = PreparedCorpus(write_corpus(documents, "small").prefix)
    prepared = PreparedData(tokenizer_dir, tokenizer.vocab_size, (corpus,), ())
    seen = {}
    for strategy in ("static", "dynamic"):
        masking = MaskingConfig(strategy=strategy)
        options = dict(format=packing_format, sequence_length=64, num_workers=0, masking=masking)
        config = DataConfig("unused", (CorpusConfig(path="unused"),), **options)
        batches = build_train_batches(prepared, config, TrainConfig(global_batch_size=1, micro_batch_size=1), 3, 0, 1)
        rows = [rows_of(batches.micro_batches(step)) for step in range(40 * len(batches._blocks._corpora[0]))]
        seen[strategy] = Counter(row for (row,) in rows)
    num_blocks = len(batches._blocks._corpora[0])
    # (Two of the ten masks of a block may happen to be the same: then it is seen eight times.)
    assert set(seen["static"].values()) <= {4, 8} and 9 * num_blocks <= len(seen["static"]) <= 10 * num_blocks
    assert len(seen["dynamic"]) > 3 * len(seen["static"])


def test_the_samples_so_far_are_counted_by_corpus(make_batches, prepared):
    batches = make_batches("doc-sentences")
    counts = batches.corpus_samples(30)
    assert list(counts) == [str(corpus.prefix) for corpus in prepared.train]
    assert sum(counts.values()) == 30 * batches.samples_per_step
    samples = batches._sampler(np.arange(30 * batches.samples_per_step))
    assert list(counts.values()) == np.bincount(samples.corpus_N).tolist()


@pytest.mark.parametrize("packing_format", FORMATS)
def test_the_places_of_1024_ranks_are_those_of_the_step(make_batches, packing_format):
    batches = make_batches(packing_format, train=TrainConfig(global_batch_size=4096, micro_batch_size=2))
    shared = (batches._blocks, batches._sampler, batches.samples_per_step, batches.num_micro_batches)
    ranks = [type(batches)(*shared, rank, 1024, 0, []) for rank in range(1024)]
    places = np.concatenate([places for rank in ranks for _, places in rank._places])
    assert sorted(places.tolist()) == list(range(batches.samples_per_step))
