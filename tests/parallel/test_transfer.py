"""Micro-batches on their way to the device: one copy each, one shape for all, nothing lost."""

import dataclasses

import torch

from robustbert.parallel.linear_cross_entropy import IGNORE_INDEX
from robustbert.parallel.transfer import Transfer, num_predictions, pack, unpack
from tests.parallel.small_training import batches_of_step

MOST = 20
CPU = torch.device("cpu")


def batches(has_pairs=False):
    return [dataclasses.replace(batch, most_predictions=MOST) for batch in batches_of_step(3, has_pairs)]


def test_a_packed_batch_is_the_batch():
    for has_pairs in (False, True):
        for batch, packed in zip(batches(has_pairs), Transfer(CPU, packs=True)(batches(has_pairs)), strict=True):
            real = packed.targets_M != IGNORE_INDEX
            assert packed.num_masked_tokens == len(batch.targets_M) == real.sum()
            assert packed.tokens_BS.equal(batch.tokens_BS.int()) and packed.lengths_B.equal(batch.attended_BS.sum(1).int())
            assert packed.masked_positions_M[real].equal(batch.masked_positions_M.int())
            assert packed.targets_M[real].equal(batch.targets_M.int())
            if has_pairs:
                assert packed.token_types_BS.equal(batch.token_types_BS.int()) and packed.is_next_B.equal(batch.is_next_B.int())
            else:
                assert packed.token_types_BS is None and packed.is_next_B is None


def test_micro_batches_with_different_numbers_of_masks_have_one_shape():
    assert len({len(batch.targets_M) for batch in batches()}) > 1
    assert {num_predictions(batch) for batch in batches()} == {MOST}
    assert {len(pack(batch)) for batch in batches()} == {len(pack(batches()[0]))}


def test_a_batch_with_more_predictions_than_announced_keeps_them_all():
    (batch, *_) = batches()
    many = dataclasses.replace(batch, masked_positions_M=torch.arange(22), targets_M=torch.arange(22) + 5)
    packed = unpack(pack(many), many)
    assert len(packed.targets_M) == 64 and packed.targets_M[:22].equal(many.targets_M.int())


def test_a_batch_without_padding_has_full_lengths():
    (batch, *_) = batches()
    full = dataclasses.replace(batch, attended_BS=None)
    assert unpack(pack(full), full).lengths_B.tolist() == [full.tokens_BS.shape[1]] * len(full.tokens_BS)


def test_the_next_batch_is_sent_before_this_one_is_handed_out():
    taken = []

    def source():
        for number, batch in enumerate(batches()):
            taken.append(number)
            yield batch

    arriving = Transfer(CPU, packs=True)(source())
    for number in range(len(batches())):
        next(arriving)
        assert taken[-1] == min(number + 1, len(batches()) - 1)
