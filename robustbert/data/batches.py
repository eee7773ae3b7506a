"""Batches for training and evaluation: packed, masked, padded, and made ahead of the step that needs them.

A sample is a pure function of (seed, its number); a step's samples are the same whatever the number of ranks, of
micro-batches and of workers. Where samples are of different lengths, those of a step are sorted by length before they
are cut into micro-batches. Legend: B micro-batch, S sequence, M masked positions of the micro-batch, N samples.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from robustbert.config import DataConfig, TrainConfig
from robustbert.data.blocks.joined import join_packings
from robustbert.data.blocks.packing import open_packing
from robustbert.data.blocks.rows import Packing, Rows, collect_rows
from robustbert.data.hashing import hash_of
from robustbert.data.masking import MaskingVocabulary, mask_epochs, mask_tokens, sample_keys
from robustbert.data.open_corpus import Corpus
from robustbert.data.prepare import PreparedCorpus, PreparedData
from robustbert.data.sampler import Permutation, Sampler, Samples
from robustbert.data.tokenizer import Tokenizer, load_tokenizer

# Assembled together: enough to spread numpy's overhead, few enough to stay in the cache and, sorted, to be alike in length.
_TOKENS_AT_ONCE, _ROWS_AT_ONCE = 1 << 17, 512
_NEARLY = 0.05  # tokens a step may differ by so much between the formats
_HELD_OUT_STREAM = 4  # keeps the choice of held-out blocks apart from the sampler's permutations
_PAIR_STREAM = 7  # keeps the choice of second segments apart from the masks


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    tokens_BS: int64, masked inputs, padded on the right with <pad>: with FULL-SENTENCES to the sequence length, otherwise
    to the longest row, rounded up (data.pad_to_multiple).
    masked_positions_M: int64, flat index b * S + s of each prediction, ascending. targets_M: int64, the original ids.
    attended_BS: bool, False on padding; None where there is no padding (attention has a faster kernel then).
    num_real_tokens: tokens that are neither padding nor filler rows, <s> and </s> included.
    most_predictions: no micro-batch of this shape has a larger M, but with whole words.
    token_types_BS: int64, 1 on the second segment of a pair, else 0; None where the format has no pairs.
    is_next_B: int64, 1 where the second segment follows the first in its document, 0 where it comes from another
    document, -1 on filler rows; None where the format has no pairs.
    """

    tokens_BS: torch.Tensor
    attended_BS: torch.Tensor | None
    masked_positions_M: torch.Tensor
    targets_M: torch.Tensor
    num_real_tokens: int
    token_types_BS: torch.Tensor | None = None
    is_next_B: torch.Tensor | None = None
    most_predictions: int = 0


class MaskedBlocks:
    """Turns samples of several packed corpora, all of one format, into masked micro-batches of torch tensors."""

    def __init__(self, corpora: list[Packing], data_config: DataConfig, seed: int, tokenizer: Tokenizer):
        self._corpora, self._masking, self._seed = corpora, data_config.masking, seed
        self._vocabulary = MaskingVocabulary.of(tokenizer, data_config.masking)
        self._tokenizer, self._has_pairs = tokenizer, data_config.has_pairs
        self._pair_keys = [int(hash_of(seed, _PAIR_STREAM, i)[0]) for i in range(len(corpora))]
        self._sequence_length, self._multiple = data_config.sequence_length, data_config.pad_to_multiple
        self.has_fixed_width = all(corpus.has_fixed_width for corpus in corpora)
        self._rows_at_once = min(_ROWS_AT_ONCE, int(_TOKENS_AT_ONCE / max((c.sizes.mean for c in corpora), default=1.0)))

    def lengths(self, samples: Samples) -> np.ndarray:
        """Tokens of each sample, specials included: int64 (N,)."""
        epoch_N = mask_epochs(samples.epoch_N, self._masking)
        lengths_N = np.empty(len(samples.block_N), np.int64)
        for corpus in np.unique(samples.corpus_N):
            here = samples.corpus_N == corpus
            answer = self._corpora[corpus].lengths(samples.block_N[here], epoch_N[here], self._pair_keys[corpus])
            lengths_N[here] = answer
        return lengths_N

    def micro_batches(self, samples: Samples, micro_batch_size: int) -> list[Batch]:
        """One Batch for every micro_batch_size samples; where the last ones are fewer, filler rows complete them."""
        size = max(1, self._rows_at_once // micro_batch_size) * micro_batch_size
        batches = []
        for start in range(0, len(samples.block_N), size):
            batches += self._assemble(samples.part(slice(start, start + size)), micro_batch_size)
        return batches

    def filler(self, num_rows: int) -> Batch:
        """A Batch without predictions: every row is <s> </s> and padding, so that attention has something to attend to."""
        width = self._sequence_length if self.has_fixed_width else self._rounded(np.array([2]))[0]
        rows = self._with_filler(None, num_rows, int(width))
        tokens_BS, nothing = torch.from_numpy(rows.tokens_NS), torch.empty(0, dtype=torch.int64)
        return Batch(
            tokens_BS,
            tokens_BS != self._tokenizer.pad_id,
            nothing,
            nothing,
            0,
            *self._pair_tensors(rows, slice(None), width),
            most_predictions=self._most_predictions(num_rows, int(width)),
        )

    def _assemble(self, samples: Samples, micro_batch_size: int) -> list[Batch]:
        num_samples = len(samples.block_N)
        num_batches = -(-num_samples // micro_batch_size)
        widths = self._widths(samples, micro_batch_size)
        width, num_rows = int(widths.max()), num_batches * micro_batch_size
        rows = self._with_filler(self._gather(samples, width), num_rows, width)
        keys_N = np.zeros(num_rows, np.uint64)
        epoch_N = mask_epochs(samples.epoch_N, self._masking)
        keys_N[:num_samples] = sample_keys(self._seed, samples.corpus_N, epoch_N, samples.block_N)
        inputs_NS, positions_M, targets_M = mask_tokens(rows.tokens_NS, keys_N, self._masking, self._vocabulary)

        cuts = np.searchsorted(positions_M, np.arange(num_batches + 1) * micro_batch_size * width).tolist()
        row_M, place_M = np.divmod(positions_M, width)
        positions_M = row_M % micro_batch_size * widths[row_M // micro_batch_size] + place_M
        inputs, positions, targets = map(torch.from_numpy, (inputs_NS, positions_M, targets_M))
        lengths = torch.from_numpy(rows.lengths_N)
        real = lengths.clone()
        real[num_samples:] = 0
        num_real = real.view(num_batches, micro_batch_size).sum(1).tolist()
        attended = torch.arange(width) < lengths[:, None]
        batches = []
        for i, own_width in enumerate(widths.tolist()):
            here, predictions = slice(i * micro_batch_size, (i + 1) * micro_batch_size), slice(cuts[i], cuts[i + 1])
            is_full = num_real[i] == micro_batch_size * own_width
            batches.append(
                Batch(
                    tokens_BS=inputs[here, :own_width].contiguous(),
                    attended_BS=None if is_full else attended[here, :own_width].contiguous(),
                    masked_positions_M=positions[predictions],
                    targets_M=targets[predictions],
                    num_real_tokens=num_real[i],
                    most_predictions=self._most_predictions(micro_batch_size, own_width),
                    **dict(zip(("token_types_BS", "is_next_B"), self._pair_tensors(rows, here, own_width))),
                )
            )
        return batches

    def _widths(self, samples: Samples, micro_batch_size: int) -> np.ndarray:
        """The width of each micro-batch of these samples: int64."""
        starts = np.arange(0, len(samples.block_N), micro_batch_size)
        if self.has_fixed_width:
            return np.full(len(starts), self._sequence_length)
        return self._rounded(np.maximum.reduceat(self.lengths(samples), starts))

    def _most_predictions(self, num_rows: int, width: int) -> int:
        """A row of n tokens has at most floor(probability * n) + 1 of them masked."""
        return num_rows * (int(self._masking.probability * width) + 1)

    def _rounded(self, lengths: np.ndarray) -> np.ndarray:
        return np.minimum(-(-lengths // self._multiple) * self._multiple, self._sequence_length)

    def _gather(self, samples: Samples, width: int) -> Rows:
        epoch_N = mask_epochs(samples.epoch_N, self._masking)
        present = np.unique(samples.corpus_N).tolist()
        if len(present) == 1:
            return self._corpora[present[0]].rows(samples.block_N, epoch_N, self._pair_keys[present[0]], width)

        def rows_of(corpus: int) -> tuple[np.ndarray, Rows]:
            here = samples.corpus_N == corpus
            return here, self._corpora[corpus].rows(samples.block_N[here], epoch_N[here], self._pair_keys[corpus], width)

        return collect_rows(map(rows_of, present), len(samples.corpus_N))

    def _with_filler(self, rows: Rows | None, num_rows: int, width: int) -> Rows:
        """The rows, and filler rows after them, so that they are num_rows."""
        missing = num_rows - (0 if rows is None else len(rows.lengths_N))
        if missing == 0:
            return rows
        tokens_NS = np.full((missing, width), self._tokenizer.pad_id)
        tokens_NS[:, 0], tokens_NS[:, 1] = self._tokenizer.bos_id, self._tokenizer.eos_id
        filler = Rows(tokens_NS, np.full(missing, 2))
        if self._has_pairs:
            filler = filler._replace(token_types_NS=np.zeros_like(tokens_NS), is_next_N=np.full(missing, -1))
        if rows is None:
            return filler
        return Rows(*(None if a is None else np.concatenate([a, b]) for a, b in zip(rows, filler)))

    def _pair_tensors(self, rows: Rows, here: slice, width: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not self._has_pairs:
            return None, None
        token_types = torch.from_numpy(rows.token_types_NS[here, :width]).contiguous()
        return token_types, torch.from_numpy(rows.is_next_N[here])


class TrainBatches:
    """The micro-batches of every step for one data-parallel rank.

    `micro_batches(step)` may be asked for any step; while steps come in order, `num_workers` threads make the next ones
    ahead (numpy leaves the interpreter's lock where the work is).
    samples_per_step, micro_batches_per_step: of all ranks together; step k has the samples from k * samples_per_step on.
    Micro-batch m of rank r is number m * data_parallel_size + r of the step's, which share its samples evenly: whatever the
    number of ranks, they are the same. names: of the corpora.
    """

    def __init__(
        self,
        blocks: MaskedBlocks,
        sampler: Sampler,
        samples_per_step: int,
        micro_batches_per_step: int,
        data_parallel_rank: int,
        data_parallel_size: int,
        num_workers: int,
        names: list[str],
    ):
        assert 0 <= data_parallel_rank < data_parallel_size, (data_parallel_rank, data_parallel_size)
        assert micro_batches_per_step % data_parallel_size == 0, (micro_batches_per_step, data_parallel_size)
        self.samples_per_step, self.num_micro_batches = samples_per_step, micro_batches_per_step // data_parallel_size
        self._blocks, self._sampler, self._names = blocks, sampler, names
        own = np.arange(self.num_micro_batches) * data_parallel_size + data_parallel_rank
        least, num_larger = divmod(samples_per_step, micro_batches_per_step)  # the first ones have one row more
        starts = own * least + np.minimum(own, num_larger)
        by_size = ((least + 1, starts[own < num_larger]), (least, starts[own >= num_larger]))
        self._places = [(size, (begin[:, None] + np.arange(size)).ravel()) for size, begin in by_size if size and begin.size]
        self._num_ahead = num_workers + 1 if num_workers else 0
        self._workers = ThreadPoolExecutor(num_workers, "batches") if num_workers else None
        self._ahead: deque[tuple[int, Future]] = deque()
        self._first_step = self._first_sample = 0

    def begin_at(self, step: int, sample: int) -> None:
        """Have that step begin with that sample, and the others lie around it: the steps before had another size."""
        if (step, sample) != (self._first_step, self._first_sample):
            self._forget_ahead()
            self._first_step, self._first_sample = step, sample

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0 on), in the order in which they are computed.

        Raises what went wrong in the worker that made them.
        """
        if self._workers is None:
            return self._make(step)
        if self._ahead and self._ahead[0][0] != step:
            self._forget_ahead()
        following = self._ahead[-1][0] + 1 if self._ahead else step
        for coming in range(following, step + self._num_ahead + 1):
            self._ahead.append((coming, self._workers.submit(self._make, coming)))
        return self._ahead.popleft()[1].result()

    def close(self) -> None:
        """End the worker threads; nothing can be asked for afterwards."""
        self._forget_ahead()
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)

    def corpus_samples(self, step: int) -> dict[str, int]:
        """How many samples of each corpus the steps before `step` hold, over all ranks; in constant time."""
        return dict(zip(self._names, self._sampler.shares(self._sample_of(step)).tolist()))

    def _make(self, step: int) -> list[Batch]:
        first = self._sample_of(step)
        if not self._blocks.has_fixed_width:
            samples = self._sampler(first + np.arange(self.samples_per_step))
            samples = samples.part(_by_length(self._blocks.lengths(samples)))
        batches = []
        for size, places in self._places:
            own = self._sampler(first + places) if self._blocks.has_fixed_width else samples.part(places)
            batches += self._blocks.micro_batches(own, size)
        missing = self.num_micro_batches - len(batches)  # where a step has fewer samples than micro-batches
        return batches + [self._blocks.filler(1) for _ in range(missing)]

    def _sample_of(self, step: int) -> int:
        return self._first_sample + (step - self._first_step) * self.samples_per_step

    def _forget_ahead(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()


class ValidBatches:
    """The held-out micro-batches of one data-parallel rank: the same blocks and the same masks at every evaluation.

    Iterating gives every rank the same number of micro-batches of the same number of rows; what is left over is filler,
    without predictions. `num_sequences` is the number of held-out blocks over all ranks; without held-out data it is 0.
    """

    def __init__(
        self,
        blocks: MaskedBlocks,
        samples: Samples,
        micro_batch_size: int,
        data_parallel_rank: int,
        data_parallel_size: int,
    ):
        self._blocks, self._micro_batch_size = blocks, micro_batch_size
        self._rank, self._size = data_parallel_rank, data_parallel_size
        self._samples = samples if blocks.has_fixed_width else samples.part(_by_length(blocks.lengths(samples)))
        self.num_sequences = len(samples.block_N)

    def __len__(self) -> int:
        """Micro-batches of this rank, as of every other."""
        return -(-self.num_sequences // (self._micro_batch_size * self._size))

    def __iter__(self) -> Iterator[Batch]:
        for i in range(len(self)):
            start = (i * self._size + self._rank) * self._micro_batch_size
            part = self._samples.part(slice(start, start + self._micro_batch_size))
            if len(part.block_N):
                yield from self._blocks.micro_batches(part, self._micro_batch_size)
            else:
                yield self._blocks.filler(self._micro_batch_size)


def build_train_batches(
    prepared: PreparedData,
    data_config: DataConfig,
    train_config: TrainConfig,
    seed: int,
    data_parallel_rank: int,
    data_parallel_size: int,
) -> TrainBatches:
    """Open the training corpora and return this rank's batches. DataError: a corpus is missing, damaged or empty."""
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    corpora = _open_corpora(prepared.train, data_config, tokenizer)
    weights = [corpus.weight for corpus in prepared.train]
    sampler = Sampler([len(corpus) for corpus in corpora], weights, seed)
    samples_per_step = _samples_per_step(corpora, sampler, weights, train_config.global_batch_size)
    # As many times those of FULL-SENTENCES as keep each within micro_batch_size: every data-parallel size divides them.
    factor = -(-samples_per_step // train_config.global_batch_size)
    return TrainBatches(
        MaskedBlocks(corpora, data_config, seed, tokenizer),
        sampler,
        samples_per_step,
        factor * train_config.global_batch_size // train_config.micro_batch_size,
        data_parallel_rank,
        data_parallel_size,
        data_config.num_workers,
        _names(prepared.train),
    )


def build_valid_batches(
    prepared: PreparedData,
    data_config: DataConfig,
    train_config: TrainConfig,
    seed: int,
    data_parallel_rank: int,
    data_parallel_size: int,
) -> ValidBatches:
    """At most train.eval_sequences held-out blocks, chosen and masked by the seed alone (epoch 0).

    Runs that are compared take the same seed. DataError: a corpus is missing or damaged.
    """
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    corpora = _open_corpora(prepared.valid, data_config, tokenizer)
    ends = np.cumsum([len(corpus) for corpus in corpora], dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    place_N = np.arange(total)
    if total > train_config.eval_sequences:
        place_N = np.sort(Permutation(total, seed, _HELD_OUT_STREAM)(np.arange(train_config.eval_sequences)))
    corpus_N = np.searchsorted(ends, place_N, side="right")
    starts = np.concatenate([[0], ends]).astype(np.int64)
    samples = Samples(corpus_N, np.zeros_like(place_N), place_N - starts[corpus_N])
    # Training masks are keyed by the corpus' number from 0 on; the stream keeps the held-out ones apart from them.
    blocks = MaskedBlocks(corpora, data_config, seed ^ (_HELD_OUT_STREAM << 60), tokenizer)
    return ValidBatches(blocks, samples, train_config.micro_batch_size, data_parallel_rank, data_parallel_size)


def _samples_per_step(
    corpora: list[Packing], sampler: Sampler, weights: list[float | None], global_batch_size: int
) -> int:
    """The samples that hold about as many tokens as global_batch_size blocks of FULL-SENTENCES (section 4.2).

    Where they would be nearly as many as those, just as many: then the micro-batches are full.
    """
    own_mean = sampler.fractions @ [corpus.sizes.mean for corpus in corpora]
    full_sampler = Sampler([corpus.sizes.num_full_blocks for corpus in corpora], weights, seed=0)
    full_mean = full_sampler.fractions @ [corpus.sizes.full_mean for corpus in corpora]
    ratio = full_mean / own_mean
    return global_batch_size if abs(ratio - 1) <= _NEARLY else max(1, round(global_batch_size * ratio))


def _by_length(lengths_N: np.ndarray) -> np.ndarray:
    """The order of samples by length, the earlier one first where lengths are equal."""
    return np.argsort(lengths_N, kind="stable")


def _names(prepared: tuple[PreparedCorpus, ...]) -> list[str]:
    """A name for each corpus: as the user wrote it, and its prefix where that is not given or not the only one of the name."""
    names = [corpus.name or str(corpus.prefix) for corpus in prepared]
    return [str(corpus.prefix) if names.count(name) > 1 else name for corpus, name in zip(prepared, names)]


def _open_corpora(prepared: tuple[PreparedCorpus, ...], data_config: DataConfig, tokenizer: Tokenizer) -> list[Packing]:
    def open_part(corpus: Corpus) -> Packing:
        return open_packing(corpus, data_config.format, data_config.sequence_length, tokenizer)

    return [join_packings(list(map(open_part, entry.open_parts(tokenizer)))) for entry in prepared]
