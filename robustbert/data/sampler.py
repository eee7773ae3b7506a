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
# Without weights, every window of about this many samples holds each corpus in proportion to its size.
_WINDOW = 10_000
_CONCATENATED, _SLOTS, _ONE_CORPUS, _WINDOWS, _ONE_OF_SEVERAL = 1, 2, 3, 5, 6  # keep the permutations of one seed apart


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

    def part(self, which: slice | np.ndarray) -> "Samples":
        """Some of them, in the order of `which`."""
        return Samples(self.corpus_N[which], self.epoch_N[which], self.block_N[which])


class Sampler:
    """Sample number n -> (corpus, epoch, block), a pure function of (seed, n) in constant time.

    Without weights the corpora form one: every block comes exactly once an epoch, and each corpus keeps its proportion
    all the way through (within one block a window).
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
        self._total = int(self._ends[-1])
        self._num_windows = -(-self._total // _WINDOW)

    @property
    def fractions(self) -> np.ndarray:
        """The share of the samples that comes from each corpus in the long run: float64, sum 1."""
        return np.diff(self._ends, prepend=0) / self._total

    def __call__(self, numbers_N: np.ndarray) -> Samples:
        """The samples of an int64 array of sample numbers."""
        numbers_N = np.asarray(numbers_N, np.int64)
        if self._counts is not None:
            return self._weighted(numbers_N)
        epoch_N, place_N = np.divmod(numbers_N, self._total)
        if len(self._sizes) == 1:
            block_N = _permute_by_epoch(self._total, epoch_N, place_N, self._seed, _CONCATENATED)
            return Samples(np.zeros_like(block_N), epoch_N, block_N)
        place_N = self._interleave(epoch_N, place_N)
        corpus_N = np.searchsorted(self._ends, place_N, side="right")
        return self._within_corpora(corpus_N, epoch_N, place_N - self._starts[corpus_N], _ONE_OF_SEVERAL)

    def shares(self, num_samples: int) -> np.ndarray:
        """How many of the first num_samples samples come from each corpus: int64, in constant time."""
        if len(self._sizes) == 1:
            return np.array([num_samples])
        if self._counts is not None:
            num_periods, rest = divmod(num_samples, PERIOD)
            slots = Permutation(PERIOD, self._seed, _SLOTS, num_periods)(np.arange(rest))
            return num_periods * self._counts + self._count_by_corpus(slots)
        epoch, rest = divmod(num_samples, self._total)
        window, num_begun, _ = (int(value[0]) for value in self._window_of(np.array([rest])))
        # Of the places below y, those in the first `window` windows are the ones whose remainder is below `window`.
        bounds = np.append(self._starts, self._total)
        below = bounds // self._num_windows * window + np.minimum(bounds % self._num_windows, window)
        begun = rest - num_begun + np.arange(num_begun)
        begun = self._interleave(np.full_like(begun, epoch), begun)
        return epoch * np.array(self._sizes) + np.diff(below) + self._count_by_corpus(begun)

    def _weighted(self, numbers_N: np.ndarray) -> Samples:
        period_N, slot_N = np.divmod(numbers_N, PERIOD)
        slot_N = _permute_by_epoch(PERIOD, period_N, slot_N, self._seed, _SLOTS)
        corpus_N = np.searchsorted(self._ends, slot_N, side="right")
        ordinal_N = period_N * self._counts[corpus_N] + (slot_N - self._starts[corpus_N])
        epoch_N, place_N = np.divmod(ordinal_N, np.array(self._sizes)[corpus_N])
        return self._within_corpora(corpus_N, epoch_N, place_N, _ONE_CORPUS)

    def _within_corpora(self, corpus_N: np.ndarray, epoch_N: np.ndarray, place_N: np.ndarray, stream: int) -> Samples:
        """The samples whose blocks are the permuted places of their corpora."""
        block_N = np.empty_like(place_N)
        for corpus in np.unique(corpus_N):
            here, size = corpus_N == corpus, self._sizes[corpus]
            block_N[here] = _permute_by_epoch(size, epoch_N[here], place_N[here], self._seed, stream, int(corpus))
        return Samples(corpus_N, epoch_N, block_N)

    def _interleave(self, epoch_N: np.ndarray, place_N: np.ndarray) -> np.ndarray:
        """Places of an epoch -> places in the concatenated corpora, a bijection.

        Window w holds the places w, w + num_windows, w + 2 num_windows, ... of the concatenated corpora, in a random order:
        so the corpora of a window can be counted without looking at each.
        """
        window_N, slot_N, size_N = self._window_of(place_N)
        key_N = epoch_N * self._num_windows + window_N
        for size in np.unique(size_N):
            here = size_N == size
            slot_N[here] = _permute_by_epoch(int(size), key_N[here], slot_N[here], self._seed, _WINDOWS)
        return window_N + self._num_windows * slot_N

    def _window_of(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The window of each place of an epoch, the place's number in it, and the window's size."""
        size, num_larger = divmod(self._total, self._num_windows)  # the first windows have one place more
        beyond_N = place_N - num_larger * (size + 1)
        is_larger_N = beyond_N < 0
        window_N = np.where(is_larger_N, place_N // (size + 1), num_larger + beyond_N // size)
        slot_N = np.where(is_larger_N, place_N % (size + 1), beyond_N % size)
        return window_N, slot_N, size + is_larger_N

    def _count_by_corpus(self, places: np.ndarray) -> np.ndarray:
        return np.bincount(np.searchsorted(self._ends, places, side="right"), minlength=len(self._sizes))


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
