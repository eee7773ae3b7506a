"""Batches for training and evaluation: packed, masked, padded, and made ahead of the step that needs them.

A sample is a pure function of (seed, its number); a step's samples are the same whatever the number of ranks, of
micro-batches and of workers. Legend: B micro-batch, S sequence, M masked positions of the micro-batch, N samples.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch

from robustbert.config import DataConfig, MaskingConfig, TrainConfig
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.errors import DataError
from robustbert.data.masking import MaskingVocabulary, mask_tokens, sample_keys
from robustbert.data.packing import PackedCorpus, open_packing
from robustbert.data.prepare import PreparedCorpus, PreparedData
from robustbert.data.sampler import Permutation, Sampler, Samples
from robustbert.data.tokenizer import Tokenizer, load_tokenizer

_ROWS_AT_ONCE = 256  # assembled together: enough to spread numpy's overhead, few enough to stay in the cache
_HELD_OUT_STREAM = 4  # keeps the choice of held-out blocks apart from the sampler's permutations


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    tokens_BS: int64, masked inputs, padded on the right with <pad> to the fixed sequence length.
    masked_positions_M: int64, flat index b * S + s of each prediction, ascending. targets_M: int64, the original ids.
    attended_BS: bool, False on padding; None where there is no padding (attention has a faster kernel then).
    num_real_tokens: tokens that are neither padding nor filler rows, <s> and </s> included.
    """

    tokens_BS: torch.Tensor
    attended_BS: torch.Tensor | None
    masked_positions_M: torch.Tensor
    targets_M: torch.Tensor
    num_real_tokens: int

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **tensors)


class MaskedBlocks:
    """Turns samples of several packed corpora into masked micro-batches of torch tensors."""

    def __init__(self, corpora: list[PackedCorpus], masking: MaskingConfig, seed: int, tokenizer: Tokenizer):
        self._corpora, self._masking, self._seed = corpora, masking, seed
        self._vocabulary = MaskingVocabulary.of(tokenizer)
        self._tokenizer = tokenizer

    def micro_batches(self, samples: Samples, micro_batch_size: int) -> list[Batch]:
        """One Batch for every micro_batch_size samples; their number must be a multiple of it."""
        size = max(1, _ROWS_AT_ONCE // micro_batch_size) * micro_batch_size
        num_samples = len(samples.block_N)
        assert num_samples % micro_batch_size == 0, (num_samples, micro_batch_size)
        batches = []
        for start in range(0, num_samples, size):
            part = slice(start, start + size)
            part = Samples(samples.corpus_N[part], samples.epoch_N[part], samples.block_N[part])
            batches += self._assemble(part, micro_batch_size)
        return batches

    def filler(self, num_rows: int, sequence_length: int) -> Batch:
        """A Batch without predictions: every row is <s> </s> and padding, so that attention has something to attend to."""
        tokens_BS = torch.full((num_rows, sequence_length), self._tokenizer.pad_id)
        tokens_BS[:, 0], tokens_BS[:, 1] = self._tokenizer.bos_id, self._tokenizer.eos_id
        nothing = torch.empty(0, dtype=torch.int64)
        return Batch(tokens_BS, tokens_BS != self._tokenizer.pad_id, nothing, nothing, num_real_tokens=0)

    def _assemble(self, samples: Samples, micro_batch_size: int) -> list[Batch]:
        tokens_NS, lengths_N = self._gather(samples)
        keys_N = sample_keys(self._seed, samples.corpus_N, samples.epoch_N, samples.block_N)
        inputs_NS, positions_M, targets_M = mask_tokens(tokens_NS, keys_N, self._masking, self._vocabulary)
        num_batches, per_batch = len(lengths_N) // micro_batch_size, micro_batch_size * tokens_NS.shape[1]
        cuts = np.searchsorted(positions_M, np.arange(num_batches + 1) * per_batch).tolist()
        inputs, positions, targets = map(torch.from_numpy, (inputs_NS, positions_M, targets_M))
        lengths = torch.from_numpy(lengths_N)
        num_real = lengths.view(num_batches, micro_batch_size).sum(1).tolist()
        attended = torch.arange(inputs.shape[1]) < lengths[:, None]
        rows = [slice(i * micro_batch_size, (i + 1) * micro_batch_size) for i in range(num_batches)]
        return [
            Batch(
                tokens_BS=inputs[rows[i]],
                attended_BS=attended[rows[i]] if num_real[i] < per_batch else None,
                masked_positions_M=positions[cuts[i] : cuts[i + 1]] - i * per_batch,
                targets_M=targets[cuts[i] : cuts[i + 1]],
                num_real_tokens=num_real[i],
            )
            for i in range(num_batches)
        ]

    def _gather(self, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
        present = np.unique(samples.corpus_N)
        if len(present) == 1:
            return self._corpora[present[0]].blocks(samples.block_N)
        num_samples = len(samples.block_N)
        tokens_NS = np.empty((num_samples, self._corpora[0].sequence_length), np.int64)
        lengths_N = np.empty(num_samples, np.int64)
        for corpus in present:
            here = samples.corpus_N == corpus
            tokens_NS[here], lengths_N[here] = self._corpora[corpus].blocks(samples.block_N[here])
        return tokens_NS, lengths_N


class TrainBatches:
    """The micro-batches of every step for one data-parallel rank.

    `micro_batches(step)` may be asked for any step; while steps come in order, `num_workers` threads make the next ones
    ahead (numpy leaves the interpreter's lock where the work is). `wait_s` is how long the last call waited, in seconds.
    """

    def __init__(
        self,
        blocks: MaskedBlocks,
        sampler: Sampler,
        train_config: TrainConfig,
        data_parallel_rank: int,
        data_parallel_size: int,
        num_workers: int,
    ):
        per_pass = train_config.micro_batch_size * data_parallel_size
        assert 0 <= data_parallel_rank < data_parallel_size, (data_parallel_rank, data_parallel_size)
        assert train_config.global_batch_size % per_pass == 0, (train_config.global_batch_size, per_pass)
        self.wait_s = 0.0
        self._blocks, self._sampler = blocks, sampler
        self._global_batch_size, self._micro_batch_size = train_config.global_batch_size, train_config.micro_batch_size
        # Micro-batch m of rank r is the slice m * size + r of the global batch, whatever the seed.
        first = np.arange(0, self._global_batch_size, per_pass) + data_parallel_rank * self._micro_batch_size
        self._places_N = (first[:, None] + np.arange(self._micro_batch_size)).ravel()
        self._num_ahead = num_workers + 1 if num_workers else 0
        self._workers = ThreadPoolExecutor(num_workers, "batches") if num_workers else None
        self._ahead: deque[tuple[int, Future]] = deque()

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step (from 0 on), in the order in which they are computed.

        Raises what went wrong in the worker that made them.
        """
        started = time.perf_counter()
        if self._workers is None:
            batches = self._make(step)
        else:
            if self._ahead and self._ahead[0][0] != step:
                self._forget_ahead()
            following = self._ahead[-1][0] + 1 if self._ahead else step
            for coming in range(following, step + self._num_ahead + 1):
                self._ahead.append((coming, self._workers.submit(self._make, coming)))
            batches = self._ahead.popleft()[1].result()
        self.wait_s = time.perf_counter() - started
        return batches

    def close(self) -> None:
        """End the worker threads; nothing can be asked for afterwards."""
        self._forget_ahead()
        if self._workers is not None:
            self._workers.shutdown(wait=True, cancel_futures=True)

    def _make(self, step: int) -> list[Batch]:
        samples = self._sampler(step * self._global_batch_size + self._places_N)
        return self._blocks.micro_batches(samples, self._micro_batch_size)

    def _forget_ahead(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()


class ValidBatches:
    """The held-out micro-batches of one data-parallel rank: the same blocks and the same masks at every evaluation.

    Iterating gives every rank the same number of micro-batches of the same shape; what is left over is filler, without
    predictions. `num_sequences` is the number of held-out blocks over all ranks; without held-out data it is 0.
    """

    def __init__(
        self,
        blocks: MaskedBlocks,
        samples: Samples,
        sequence_length: int,
        micro_batch_size: int,
        data_parallel_rank: int,
        data_parallel_size: int,
    ):
        self._blocks, self._samples = blocks, samples
        self._sequence_length, self._micro_batch_size = sequence_length, micro_batch_size
        self._rank, self._size = data_parallel_rank, data_parallel_size
        self.num_sequences = len(samples.block_N)

    def __len__(self) -> int:
        """Micro-batches of this rank, as of every other."""
        return -(-self.num_sequences // (self._micro_batch_size * self._size))

    def __iter__(self) -> Iterator[Batch]:
        for i in range(len(self)):
            start = (i * self._size + self._rank) * self._micro_batch_size
            part = slice(start, min(start + self._micro_batch_size, self.num_sequences))
            yield self._batch(Samples(self._samples.corpus_N[part], self._samples.epoch_N[part], self._samples.block_N[part]))

    def _batch(self, samples: Samples) -> Batch:
        num_rows = len(samples.block_N)
        filler = self._blocks.filler(self._micro_batch_size - num_rows, self._sequence_length)
        if num_rows == 0:
            return filler
        (batch,) = self._blocks.micro_batches(samples, num_rows)
        if num_rows == self._micro_batch_size:
            return batch
        attended_BS = torch.ones_like(batch.tokens_BS, dtype=bool) if batch.attended_BS is None else batch.attended_BS
        return replace(
            batch,
            tokens_BS=torch.cat([batch.tokens_BS, filler.tokens_BS]),
            attended_BS=torch.cat([attended_BS, filler.attended_BS]),
        )


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
    sampler = Sampler([len(corpus) for corpus in corpora], [corpus.weight for corpus in prepared.train], seed)
    blocks = MaskedBlocks(corpora, data_config.masking, seed, tokenizer)
    return TrainBatches(
        blocks, sampler, train_config, data_parallel_rank, data_parallel_size, num_workers=data_config.num_workers
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
    blocks = MaskedBlocks(corpora, data_config.masking, seed ^ (_HELD_OUT_STREAM << 60), tokenizer)
    return ValidBatches(
        blocks,
        samples,
        data_config.sequence_length,
        train_config.micro_batch_size,
        data_parallel_rank,
        data_parallel_size,
    )


def _open_corpora(prepared: tuple[PreparedCorpus, ...], data_config: DataConfig, tokenizer: Tokenizer) -> list[PackedCorpus]:
    corpora = []
    for entry in prepared:
        corpus = IndexedCorpus(entry.prefix)
        if corpus.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{entry.prefix}: its tokens are those of another tokenizer ({corpus.tokenizer_dir}) than the run's; "
                "prepare it with the run's tokenizer"
            )
        corpora.append(open_packing(corpus, data_config.format, data_config.sequence_length, tokenizer))
    return corpora
