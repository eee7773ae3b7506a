"""Batches: their order, their cut into micro-batches, and their padding. All of it the same for every number of processes."""

import functools
from collections.abc import Sequence

import numpy as np
import torch

from robustbert.finetune.task import Batch, Item, Task


def num_steps_per_epoch(num_items: int, batch_size: int) -> int:
    """Steps an epoch; the last one takes what is left."""
    return -(-num_items // batch_size)


def num_items_of_step(num_items: int, step: int, batch_size: int) -> int:
    """Items of a step: the batch, or what an epoch's last step has left."""
    number = step % num_steps_per_epoch(num_items, batch_size)
    return min(batch_size, num_items - number * batch_size)


def step_micro_batches(
    items: Sequence[Item], step: int, batch_size: int, micro_batch_size: int, seed: int
) -> list[list[Item]]:
    """The micro-batches of a step, a pure function of the arguments.

    An epoch takes every item once, in an order drawn from (seed, epoch). Within its batch items are sorted by length, which
    saves padding; micro-batches of long and of short sequences alternate, so that processes get about as much of both.
    """
    steps = num_steps_per_epoch(len(items), batch_size)
    epoch, number = divmod(step, steps)
    order = _epoch_order(len(items), seed, epoch)
    chosen = sorted(order[number * batch_size : (number + 1) * batch_size], key=lambda i: (items[i].length, i))
    cut = [chosen[i : i + micro_batch_size] for i in range(0, len(chosen), micro_batch_size)]
    folded = [cut[-1 - place // 2] if place % 2 else cut[place // 2] for place in range(len(cut))]
    return [[items[i] for i in part] for part in folded]


@functools.lru_cache(maxsize=2)
def _epoch_order(num_items: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_items)


def length_sorted_batches(items: Sequence[Item], batch_size: int) -> list[list[int]]:
    """The places of all items in batches of about equal length, the longest first: what does not fit fails at once."""
    order = sorted(range(len(items)), key=lambda i: (-items[i].length, i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def collate(task: Task, items: Sequence[Item], pad_id: int, training: bool = False) -> Batch:
    """The items as a batch on the host: their sequences padded on the right to the longest. training: with targets."""
    sequences = [sequence for item in items for sequence in item.sequences]
    longest = max(map(len, sequences))
    ids_RS = np.full((len(sequences), longest), pad_id, np.int64)
    mask_RS = np.zeros_like(ids_RS)
    types_RS = np.zeros_like(ids_RS)
    for row, sequence in enumerate(sequences):
        ids_RS[row, : len(sequence)] = sequence.ids
        mask_RS[row, : len(sequence)] = 1
        if sequence.types is not None:
            types_RS[row, : len(sequence)] = sequence.types
    inputs = {"input_ids": ids_RS, "attention_mask": mask_RS}
    if sequences[0].types is not None:
        inputs["token_type_ids"] = types_RS
    return Batch(items, _tensors(inputs), _tensors(task.arrays(items, training)))


def _tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
