"""The order of samples is a bijection, exact in its shares, and a pure function of the sample's number."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbert.data import sampler as sampler_module
from robustbert.data.errors import DataError
from robustbert.data.sampler import PERIOD, Permutation, Sampler


@given(st.integers(1, 3000), st.integers(0, 2**63 - 1), st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_a_permutation_is_a_bijection(size, seed, epoch):
    assert sorted(Permutation(size, seed, epoch)(np.arange(size)).tolist()) == list(range(size))


def test_a_permutation_of_a_huge_range_needs_no_memory():
    images = Permutation(10**15 + 7, seed=3)(np.arange(1000) * 10**11)
    assert len(np.unique(images)) == 1000
    assert images.min() >= 0 and images.max() < 10**15 + 7


def test_permutations_differ_by_seed_and_epoch_and_look_random():
    size = 10_000
    orders = [Permutation(size, *key)(np.arange(size)) for key in ((1, 0), (1, 1), (2, 0))]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(size))[0, 1]) < 0.05
        assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.05
        for other in orders[:i]:
            assert (one == other).sum() < 20


def test_the_order_stays_the_same_over_releases():
    """A run that resumes under a later version must go on in the same order: these numbers are part of the format."""
    assert Permutation(1000, 1, 2)(np.arange(6)).tolist() == [650, 745, 746, 397, 844, 337]


def test_every_block_is_seen_exactly_once_per_epoch():
    sizes = [7, 50, 1]
    sampler = Sampler(sizes, [None] * 3, seed=5)
    total = sum(sizes)
    orders = []
    for epoch in range(3):
        samples = sampler(np.arange(epoch * total, (epoch + 1) * total))
        seen = list(zip(samples.corpus_N.tolist(), samples.block_N.tolist()))
        assert sorted(seen) == [(c, b) for c, size in enumerate(sizes) for b in range(size)]
        assert (samples.epoch_N == epoch).all()
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]


def test_a_sample_depends_on_its_number_alone():
    for weights in ([None, None], [3, 1]):
        sampler = Sampler([40, 500], weights, seed=5)
        numbers = np.random.default_rng(0).permutation(3000)
        mixed, ordered = sampler(numbers), sampler(np.arange(3000))
        for name in ("corpus_N", "epoch_N", "block_N"):
            np.testing.assert_array_equal(getattr(mixed, name), getattr(ordered, name)[numbers])


def test_weights_are_met_exactly_in_every_period():
    weights = [1, 1, 1, 0.5]
    sampler = Sampler([40, 500, 3, 10**6], weights, seed=5)
    for period in (0, 1, 9):
        counts = np.bincount(sampler(np.arange(period * PERIOD, (period + 1) * PERIOD)).corpus_N, minlength=4)
        assert counts.sum() == PERIOD
        assert (np.abs(counts - np.array(weights) / sum(weights) * PERIOD) < 1).all()


def test_with_weights_each_corpus_has_epochs_of_its_own():
    sampler = Sampler([40, 700], [3, 1], seed=5)
    samples = sampler(np.arange(PERIOD * 3))
    for corpus, size in enumerate([40, 700]):
        here = samples.corpus_N == corpus
        for epoch in range(int(here.sum()) // size):
            assert sorted(samples.block_N[here & (samples.epoch_N == epoch)].tolist()) == list(range(size))


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ([5, 5], [1, None], r"corpora \[1\] have no weight"),
        ([5, 0], [None, None], "no block to train on"),
        ([5, 5], [1, 1e-9], "would never be drawn"),
    ],
)
def test_sizes_and_weights_that_do_not_work_are_refused(sizes, weights, message):
    with pytest.raises(DataError, match=message):
        Sampler(sizes, weights, seed=1)


@given(
    st.lists(st.integers(1, 250), min_size=1, max_size=5),
    st.booleans(),
    st.lists(st.integers(0, 700), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_shares_are_what_a_count_gives(sizes, has_weights, numbers):
    weights = [float(i + 1) for i in range(len(sizes))] if has_weights else [None] * len(sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_module, "_WINDOW", 50)
        patch.setattr(sampler_module, "PERIOD", 100)
        sampler = Sampler(sizes, weights, seed=3)
        corpus_N = sampler(np.arange(700)).corpus_N
        for number in numbers:
            counted = np.bincount(corpus_N[:number], minlength=len(sizes))
            assert sampler.shares(number).tolist() == counted.tolist()


@pytest.mark.parametrize("weights", [[None] * 3, [5.0, 1.0, 2.0]])
def test_shares_of_many_samples_take_constant_time(weights):
    sampler = Sampler([10**9, 7, 3 * 10**9], weights, seed=3)
    started = time.perf_counter()
    for number in (10**6 + 17, 10**12 + 12345):
        shares = sampler.shares(number)
        assert shares.sum() == number
        np.testing.assert_allclose(shares / number, sampler.fractions, atol=1e-5)
    assert time.perf_counter() - started < 0.5


def test_without_weights_corpora_are_mixed_evenly_and_every_block_still_comes_once():
    sizes = [40_000, 300, 25_000]
    sampler = Sampler(sizes, [None] * 3, seed=5)
    total = sum(sizes)
    samples = sampler(np.arange(total, 2 * total))
    assert (samples.epoch_N == 1).all()
    for corpus, size in enumerate(sizes):
        here = samples.corpus_N == corpus
        assert sorted(samples.block_N[here].tolist()) == list(range(size))
        for start in range(0, total - 10_000, 10_000):
            assert abs(here[start : start + 10_000].sum() - size / total * 10_000) < 40
