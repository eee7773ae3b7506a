"""Batches are a pure function of the seed and the sample's number, whoever makes them and in whatever order."""

import numpy as np
import pytest
import torch

from robustbert.config import CorpusConfig, DataConfig, TrainConfig
from robustbert.data import batches as batches_module
from robustbert.data.batches import build_train_batches, build_valid_batches
from robustbert.data.blocks.packing import open_packing
from robustbert.data.corpus import corpus_file
from robustbert.data.errors import DataError
from robustbert.data.prepare import PreparedCorpus, PreparedData

SEQUENCE_LENGTH = 32
TRAIN = TrainConfig(global_batch_size=16, micro_batch_size=2, eval_sequences=37)


@pytest.fixture
def corpora(random_corpus):
    return [random_corpus(40, seed=1, name="one"), random_corpus(20, seed=2, name="two")]


@pytest.fixture
def prepared(corpora, tokenizer, tokenizer_dir):
    entries = tuple(PreparedCorpus(corpus.prefix) for corpus in corpora)
    return PreparedData(tokenizer_dir, tokenizer.vocab_size, train=entries, valid=entries[1:])


def data_config(num_workers=0):
    return DataConfig("unused", (CorpusConfig(path="unused"),), sequence_length=SEQUENCE_LENGTH, num_workers=num_workers)


@pytest.fixture
def make_batches(prepared):
    made = []

    def make(rank=0, size=1, num_workers=0, seed=7, train=TRAIN):
        made.append(build_train_batches(prepared, data_config(num_workers), train, seed, rank, size))
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def rows_of(micro_batches):
    """Each row as (inputs, positions, targets), so that batches of any size can be compared."""
    rows = []
    for batch in micro_batches:
        sequence_length = batch.tokens_BS.shape[1]
        for b, tokens in enumerate(batch.tokens_BS.tolist()):
            here = batch.masked_positions_M // sequence_length == b
            positions = (batch.masked_positions_M[here] - b * sequence_length).tolist()
            rows.append((tuple(tokens), tuple(positions), tuple(batch.targets_M[here].tolist())))
    return rows


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_do_not_depend_on_ranks_or_workers(make_batches, num_workers):
    expected = make_batches()
    sharded = {size: [make_batches(rank, size, num_workers) for rank in range(size)] for size in (1, 2, 4)}
    for step in range(12):
        global_batch = rows_of(expected.micro_batches(step))
        for size, ranks in sharded.items():
            by_rank = [batches.micro_batches(step) for batches in ranks]
            assert {len(micro_batches) for micro_batches in by_rank} == {8 // size}
            interleaved = [batch for passed in zip(*by_rank) for batch in passed]
            assert rows_of(interleaved) == global_batch


def test_batches_do_not_depend_on_the_micro_batch_size(make_batches):
    other = make_batches(train=TrainConfig(global_batch_size=16, micro_batch_size=8))
    assert rows_of(make_batches().micro_batches(3)) == rows_of(other.micro_batches(3))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resuming_at_any_step_gives_the_steps_of_an_uninterrupted_run(make_batches, num_workers):
    uninterrupted = make_batches()
    steps = [rows_of(uninterrupted.micro_batches(step)) for step in range(10)]
    batches = make_batches(num_workers=num_workers)
    for step in (6, 7, 8, 2, 3, 9, 9, 0):
        assert rows_of(batches.micro_batches(step)) == steps[step]


def test_an_epoch_holds_every_block_once_and_the_next_has_other_masks(make_batches, corpora, tokenizer):
    packed = [open_packing(corpus, "full-sentences", SEQUENCE_LENGTH, tokenizer) for corpus in corpora]
    blocks = sorted(tuple(corpus.block(i).tolist()) for corpus in packed for i in range(len(corpus)))
    batches = make_batches(train=TrainConfig(global_batch_size=1, micro_batch_size=1))

    def epoch(number):
        restored, masks = [], {}
        for step in range(number * len(blocks), (number + 1) * len(blocks)):
            ((tokens, positions, targets),) = rows_of(batches.micro_batches(step))
            tokens = np.array(tokens)
            tokens[list(positions)] = targets
            restored.append(tuple(tokens[tokens != tokenizer.pad_id].tolist()))
            masks[restored[-1]] = positions
        return restored, masks

    (first, masks), (second, other_masks) = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == blocks
    assert first != second
    assert sum(masks[block] == other_masks[block] for block in blocks) < 0.2 * len(blocks)


def test_the_shape_is_fixed_and_the_counts_are_true(make_batches, tokenizer):
    for batch in make_batches().micro_batches(0):
        assert batch.tokens_BS.shape == (2, SEQUENCE_LENGTH)
        assert batch.tokens_BS.dtype == batch.masked_positions_M.dtype == batch.targets_M.dtype == torch.int64
        assert batch.num_real_tokens == int((batch.tokens_BS != tokenizer.pad_id).sum())
        assert (batch.masked_positions_M.diff() > 0).all()
        assert batch.masked_positions_M.shape == batch.targets_M.shape


def test_another_seed_gives_other_batches(make_batches):
    assert rows_of(make_batches(seed=7).micro_batches(0)) != rows_of(make_batches(seed=8).micro_batches(0))


def test_weights_choose_the_share_of_each_corpus(prepared, corpora, tokenizer_dir, tokenizer):
    weighted = PreparedData(
        tokenizer_dir, tokenizer.vocab_size, tuple(PreparedCorpus(c.prefix, w) for c, w in zip(corpora, (1.0, 3.0))), ()
    )
    config = TrainConfig(global_batch_size=10_000, micro_batch_size=100)
    batches = build_train_batches(weighted, data_config(), config, 1, 0, 1)
    packed = open_packing(corpora[1], "full-sentences", SEQUENCE_LENGTH, tokenizer)
    second = {tuple(packed.block(i).tolist()) for i in range(len(packed))}
    num_second = 0
    for tokens, positions, targets in rows_of(batches.micro_batches(0)):
        tokens = np.array(tokens)
        tokens[list(positions)] = targets
        num_second += tuple(tokens[tokens != tokenizer.pad_id].tolist()) in second
    assert num_second == 7500


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_workers_exception_reaches_the_trainer_and_does_not_stay(make_batches, monkeypatch, num_workers):
    batches = make_batches(num_workers=num_workers)
    expected = rows_of(make_batches().micro_batches(0))

    def fail(*_):
        raise OSError("the disk went away")

    monkeypatch.setattr(batches_module, "mask_tokens", fail)
    with pytest.raises(OSError, match="the disk went away"):
        batches.micro_batches(0)
    monkeypatch.undo()
    if num_workers:  # steps that were made ahead failed too; asking out of order makes them again
        batches._forget_ahead()
    assert rows_of(batches.micro_batches(0)) == expected


@pytest.mark.parametrize("size", [1, 2, 4])
def test_held_out_batches_are_the_same_on_any_number_of_ranks(prepared, tokenizer, size):
    def built(rank, size):
        return build_valid_batches(prepared, data_config(), TRAIN, 7, rank, size)

    filler = (tokenizer.bos_id, tokenizer.eos_id) + (tokenizer.pad_id,) * (SEQUENCE_LENGTH - 2), (), ()
    expected = [row for row in rows_of(built(0, 1)) if row != filler]
    assert len(expected) == TRAIN.eval_sequences
    ranks = [built(rank, size) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    by_rank = [list(batches) for batches in ranks]
    assert [rows_of(batches) for batches in by_rank] == [rows_of(list(batches)) for batches in ranks]  # every time
    interleaved = [batch for passed in zip(*by_rank) for batch in passed]
    rows = rows_of(interleaved)
    assert rows == expected + [filler] * (len(rows) - len(expected))
    assert all(batch.tokens_BS.shape == (2, SEQUENCE_LENGTH) for batch in interleaved)
    real = sum(len([t for t in tokens if t != tokenizer.pad_id]) for tokens, _, _ in expected)
    assert sum(batch.num_real_tokens for batch in interleaved) == real


def test_without_held_out_text_there_are_no_held_out_batches(prepared):
    nothing = PreparedData(prepared.tokenizer_dir, prepared.vocab_size, prepared.train, valid=())
    batches = build_valid_batches(nothing, data_config(), TRAIN, 7, 0, 2)
    assert (len(batches), list(batches), batches.num_sequences) == (0, [], 0)


def test_a_corpus_of_another_tokenizer_is_refused(prepared, corpora):
    path = corpus_file(corpora[1].prefix, "json")
    path.write_text(path.read_text().replace(corpora[1].manifest.tokenizer_sha256, "0" * 64))
    with pytest.raises(DataError, match="those of another tokenizer"):
        build_train_batches(prepared, data_config(), TRAIN, 7, 0, 1)
