"""fairseq's MaskTokensDataset over blocks in memory, as an iterable of batches; for the benchmark of the data pipeline."""

import importlib.util

import numpy as np
import torch

from robustbert.convert.fairseq_import import mended_for_fairseq


def fairseq_batches(framed_NS: np.ndarray, tokenizer, batch_size: int):
    """Shuffled batches with the key input_ids of rows (int64, <s> and </s> included); None where fairseq is not installed."""
    if importlib.util.find_spec("fairseq") is None:
        return None
    with mended_for_fairseq():
        from fairseq.data import BaseWrapperDataset, MaskTokensDataset

    class Vocabulary:
        nspecial = 4

        def __len__(self) -> int:
            return tokenizer.vocab_size

    rows = BaseWrapperDataset(list(torch.from_numpy(framed_NS)))
    ids = dict(pad_idx=tokenizer.pad_id, mask_idx=tokenizer.mask_id)
    inputs, targets = MaskTokensDataset.apply_mask(rows, Vocabulary(), **ids, seed=1, mask_prob=0.15)
    return _Batches(inputs, targets, len(framed_NS), batch_size)


class _Batches:
    def __init__(self, inputs, targets, num_rows: int, batch_size: int):
        self._inputs, self._targets = inputs, targets
        self._num_rows, self._batch_size, self._epoch = num_rows, batch_size, 0

    def __iter__(self):
        self._epoch += 1
        for dataset in (self._inputs, self._targets):
            dataset.set_epoch(self._epoch)
        order = torch.randperm(self._num_rows).tolist()
        for start in range(0, self._num_rows - self._batch_size + 1, self._batch_size):
            chosen = order[start : start + self._batch_size]
            pairs = [(self._inputs[i], self._targets[i]) for i in chosen]  # the targets' masks come from the inputs' cache
            yield {"input_ids": torch.stack([pair[0] for pair in pairs]), "labels": torch.stack([pair[1] for pair in pairs])}
