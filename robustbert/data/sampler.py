"""Which block is sample number n: a permutation computed on the fly, with or without weights of the corpora.

Nothing is stored and nothing is built: a run that resumes needs only the number of its next sample.
Legend: N samples asked for at once.
"""

from dataclasses import dataclass

import numpy as np

from robustbert.data.errors import DataError
from robustbert.data.hashing import hash_of, mix64

_NUM_ROUNDS = 6
# With weights, every run of this many samples holds each corpus' share exactly (to one part in PERIOD).
PERIOD = 10_000
_CONCATENATED, _SLOTS, _ONE_CORPUS = 1, 2, 3  # keep the permutations of one seed apart


class Permutation:
    """A random bijection of 0 .. size - 1, without storage (a Feistel network with cycle walking; Black and Rogaway 2002).

    The network permutes the next power of four; a value that falls outside is sent through it again, which
    takes fewer than four rounds on average. size must lie between 1 and 2^62.
    """

    def __init__(self, size: int, seed: int, *stream: int):
        assert 1 <= size <= 2**62, size
        self.size = size
        half_bits = max(1, (int(size - 1).bit_length() + 1) // 2)
        self._half_bits = np.uint64(half_bits)
        self._half_mask = np.uint64((1 << half_bits) - 1)
        self._round_keys = [hash_of(seed, *stream, i) for i in range(_NUM_ROUNDS)]

    def __call__(self, indices_N: np.ndarray) -> np.ndarray:
        """The images (int64) of an array of indices, each in [0, size)."""
        values = self._network(np.asarray(indices_N).astype(np.uint64))
        outside = np.flatnonzero(values >= np.uint64(self.size))
        while outside.size:
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= np.uint64(self.size)]
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half_bits, values & self._half_mask
        for key in self._round_keys:
            left, right = right, left ^ (mix64(right ^ key) & self._half_mask)
        return (left << self._half_bits) | right


@dataclass(frozen=True)
class Samples:
    """Where N samples come from; three int64 arrays: the corpus, how often it was seen before, the block in it."""

    corpus_N: np.ndarray
    epoch_N: np.ndarray
    block_N: np.ndarray


class Sampler:
    """Sample number n -> (corpus, epoch, block), a pure function of (seed, n) in constant time.

    Without weights the corpora form one: every block comes exactly once an epoch.
    With weights, every PERIOD samples hold each corpus' share exactly (largest remainder), in an order permuted per
    period; within a corpus each block comes once before any comes again, so a corpus has its own epochs.

    corpus_sizes: blocks of each corpus. weights: one for each corpus, or None for all of them.
    DataError: an empty corpus, weights for some corpora only, or a weight too small to ever be drawn.
    """

    def __init__(self, corpus_sizes: list[int], weights: list[float | None], seed: int):
        if not corpus_sizes or min(corpus_sizes) < 1:
            raise DataError(f"a corpus has no block to train on (blocks of each: {corpus_sizes}); leave it out of data.train")
        self._sizes = [int(size) for size in corpus_sizes]
        self._seed = seed
        self._counts = _apportion(weights) if check_weights(weights) else None
        shares = self._sizes if self._counts is None else self._counts
        self._ends = np.cumsum(shares)
        self._starts = self._ends - shares

    def __call__(self, numbers_N: np.ndarray) -> Samples:
        """The samples of an int64 array of sample numbers."""
        numbers_N = np.asarray(numbers_N, np.int64)
        if self._counts is None:
            total = int(self._ends[-1])
            epoch_N, place_N = np.divmod(numbers_N, total)
            place_N = _permute_by_epoch(total, epoch_N, place_N, self._seed, _CONCATENATED)
            corpus_N = np.searchsorted(self._ends, place_N, side="right")
            return Samples(corpus_N, epoch_N, place_N - self._starts[corpus_N])
        period_N, slot_N = np.divmod(numbers_N, PERIOD)
        slot_N = _permute_by_epoch(PERIOD, period_N, slot_N, self._seed, _SLOTS)
        corpus_N = np.searchsorted(self._ends, slot_N, side="right")
        ordinal_N = period_N * self._counts[corpus_N] + (slot_N - self._starts[corpus_N])
        epoch_N, block_N = np.empty_like(ordinal_N), np.empty_like(ordinal_N)
        for corpus in np.unique(corpus_N):
            here, size = corpus_N == corpus, self._sizes[corpus]
            epoch, place = np.divmod(ordinal_N[here], size)
            epoch_N[here] = epoch
            block_N[here] = _permute_by_epoch(size, epoch, place, self._seed, _ONE_CORPUS, int(corpus))
        return Samples(corpus_N, epoch_N, block_N)


def check_weights(weights: list[float | None]) -> bool:
    """Whether the corpora have weights; DataError where only some of them do."""
    missing = [i for i, weight in enumerate(weights) if weight is None]
    if missing and len(missing) < len(weights):
        raise DataError(
            f"data.train: corpora {missing} have no weight and the others have one; give every corpus a weight, or none"
        )
    return not missing


def _apportion(weights: list[float]) -> np.ndarray:
    # Largest remainder: whole parts first, what is left goes to the largest fractions (the earlier corpus on a tie).
    shares = np.asarray(weights, np.float64) / np.sum(weights) * PERIOD
    counts = np.floor(shares).astype(np.int64)
    by_fraction = np.argsort(counts - shares, kind="stable")
    counts[by_fraction[: PERIOD - counts.sum()]] += 1
    if counts.min() == 0:
        raise DataError(
            f"data.train: the weight {weights[int(counts.argmin())]} is below 1/{PERIOD} of the sum of all weights "
            f"({sum(weights):g}): its corpus would never be drawn; raise it, or leave the corpus out"
        )
    return counts


def _permute_by_epoch(size: int, epoch_N: np.ndarray, place_N: np.ndarray, seed: int, *stream: int) -> np.ndarray:
    if epoch_N.size and epoch_N[0] == epoch_N[-1] and (epoch_N == epoch_N[0]).all():  # the usual case, without a copy
        return Permutation(size, seed, *stream, int(epoch_N[0]))(place_N)
    permuted_N = np.empty_like(place_N)
    for epoch in np.unique(epoch_N):
        here = epoch_N == epoch
        permuted_N[here] = Permutation(size, seed, *stream, int(epoch))(place_N[here])
    return permuted_N
