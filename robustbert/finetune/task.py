"""The contract between a task and everything else: what a task gives, and what it is given.

The runner knows examples only as a list. A task turns them into items; an item is what a batch counts, and holds one sequence
(classification), several (multiple choice, ranking), or is one of an example's several windows (span extraction). The runner
pads and cuts batches, trains on losses(), collects outputs(), and asks the task what they are worth.

I items of a batch, R sequences of all its items (in order), S tokens of the longest.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustbert.finetune.settings import Settings


@dataclass(frozen=True)
class Encoded:
    """One sequence as the model reads it, special tokens included."""

    ids: np.ndarray  # int32 (S,)
    types: np.ndarray | None = None  # int32 (S,): the segment of each token, where the model has token types

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Item:
    """What a batch counts: an example, or one window of it."""

    example: int  # its index in the list that read() gave
    sequences: tuple[Encoded, ...]
    target: Any = None  # what losses() needs, most often by arrays(); None without a label
    detail: Any = None  # what the task needs again in predictions(), such as character offsets

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True)
class Batch:
    """Items with their sequences padded, and Task.arrays() of them; on the host, then on the device."""

    items: Sequence[Item]
    inputs: dict[str, torch.Tensor]  # input_ids, attention_mask and, where the model has them, token_type_ids: int64 (R, S)
    arrays: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def num_sequences(self) -> list[int]:
        """How many of the R rows belong to each item."""
        return [len(item.sequences) for item in self.items]


class Task(ABC):
    """One task: its files, its encoding, its head, its loss, its metrics."""

    name: str
    watched: str  # the metric (higher is better) by which the best epoch is chosen, in the first of dev_splits
    settings: Settings = Settings()  # the task's column of Table 10
    grid: dict[str, tuple] = {"lr": (1e-5, 2e-5, 3e-5), "batch_size": (16, 32)}  # what a sweep tries (Table 10)
    folders: tuple[str, ...] = ()  # names of the task's folder below a folder of several tasks
    dev_splits: tuple[str, ...] = ("dev",)
    test_splits: tuple[str, ...] = ("test",)

    @abstractmethod
    def read(self, folder: Path, split: str) -> list:
        """The examples of a split ("train", or one of dev_splits and test_splits), in the file's order.

        DataError with file and line for what is not as published; FileNotFoundError where the split has no file.
        """

    @abstractmethod
    def items(self, examples: list, tokenizer, max_length: int, training: bool) -> list[Item]:
        """Encode the examples with a fast tokenizer of transformers. In training an example may give no item at all."""

    @abstractmethod
    def build_model(self, source: "ModelSource") -> torch.nn.Module:
        """A transformers model for this task on the pretrained weights of `source`; its new head is drawn from the seed."""

    @abstractmethod
    def load_model(self, folder: Path) -> torch.nn.Module:
        """The finetuned model that save_pretrained wrote into `folder`."""

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """What losses() (training) or outputs() need on the device beside the sequences, by name: Batch.arrays holds it.

        All of it travels with the sequences; a tensor made of Python's numbers would have the host wait for the device.
        """
        return {}

    @abstractmethod
    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of every item, (I,); a step minimises its mean over the items of the batch."""

    @abstractmethod
    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """What the model says of every item (logits, most often), without padding: fp32, any shape, one an item."""

    def average(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """One item's outputs of several models as those of their ensemble (section 5.1): here their mean."""
        return np.mean(outputs, axis=0)

    @abstractmethod
    def predictions(self, examples: list, items: list[Item], outputs: list[np.ndarray]) -> list:
        """One prediction an example, in their order, from the outputs of all their items: label, score, text."""

    @abstractmethod
    def metrics(self, examples: list, predictions: list) -> dict[str, float]:
        """The official metrics, between 0 and 1 (correlations between -1 and 1); every example must have its label."""

    def prediction_files(self, split: str, examples: list, predictions: list) -> dict[str, str]:
        """The predictions in the form that the task's leaderboard or official script takes: content by file name.

        Written beside the model for the development sets, and into a submission for the test sets; nothing by default.
        """
        return {}


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a folder of transformers, and what of its configuration is changed.

    untrained: the architecture alone, all weights drawn from the seed.
    """

    folder: Path
    seed: int
    dropout: float = 0.1
    attention_dropout: float = 0.1
    untrained: bool = False
