"""Tasks with one sequence an example, of one text or two: classification, and regression of a score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustbert.finetune.models import encoder_with_new_head, load_finetuned
from robustbert.finetune.task import Batch, Encoded, Item, ModelSource, Task


@dataclass(frozen=True)
class TextExample:
    """A text or a pair of texts. label: a class, or a score; None in a test set."""

    index: str  # as the leaderboard wants it back
    texts: tuple[str, ...]
    label: int | float | None = None


class TextTask(Task):
    """A head on the first token's vector, as RobertaForSequenceClassification has it.

    labels: their names in the files, by class; empty for a regression.
    """

    def __init__(self, name: str, labels: tuple[str, ...], watched: str, score: Callable[[Sequence, Sequence], dict]):
        self.name, self.labels, self.watched, self._score = name, labels, watched, score

    @property
    def is_regression(self) -> bool:
        return not self.labels

    def items(self, examples: list[TextExample], tokenizer, max_length: int, training: bool) -> list[Item]:
        """One item an example; the longer of two texts is cut first. The name of a special token inside a text is text."""
        if not examples:
            return []
        texts = [[example.texts[i] for example in examples] for i in range(len(examples[0].texts))]
        encodings = tokenizer(*texts, truncation="longest_first", max_length=max_length, split_special_tokens=True)
        types = encodings.get("token_type_ids") or [None] * len(examples)
        return [
            Item(i, (Encoded(_int32(ids), None if type_ids is None else _int32(type_ids)),), target=example.label)
            for i, (example, ids, type_ids) in enumerate(zip(examples, encodings["input_ids"], types))
        ]

    def build_model(self, source: ModelSource) -> torch.nn.Module:
        """A new head for the labels; one output without a name for a regression."""
        from transformers import AutoModelForSequenceClassification

        if self.is_regression:
            changes = dict(num_labels=1, problem_type="regression")
        else:
            names = {"id2label": dict(enumerate(self.labels)), "label2id": {label: i for i, label in enumerate(self.labels)}}
            changes = names | dict(problem_type="single_label_classification")
        return encoder_with_new_head(source, AutoModelForSequenceClassification.from_config, **changes)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from transformers import AutoModelForSequenceClassification

        return load_finetuned(folder, AutoModelForSequenceClassification)

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """The labels: classes, or scores."""
        dtype = np.float32 if self.is_regression else np.int64
        return {"targets": np.array([item.target for item in items], dtype)} if training else {}

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Cross-entropy; the squared error of a score."""
        logits, targets = model(**batch.inputs).logits.float(), batch.arrays["targets"]
        if self.is_regression:
            return (logits[:, 0] - targets) ** 2
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none")

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The logits, (classes,) an item."""
        return list(model(**batch.inputs).logits.float())

    def average(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of the models' probabilities (of their scores in a regression)."""
        if self.is_regression:
            return np.mean(outputs, axis=0)
        return mean_of_probabilities(outputs)

    def predictions(self, examples: list[TextExample], items: list[Item], outputs: list[np.ndarray]) -> list:
        """The class with the largest logit, or the score."""
        return [float(output[0]) if self.is_regression else int(np.argmax(output)) for output in outputs]

    def metrics(self, examples: list[TextExample], predictions: list) -> dict[str, float]:
        return self._score([example.label for example in examples], predictions)


def mean_of_probabilities(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of the mean of several models' probabilities; the last axis is the classes'."""
    exponents = np.exp(np.stack(logits) - np.max(logits, axis=-1, keepdims=True))
    return np.log(np.mean(exponents / exponents.sum(-1, keepdims=True), axis=0))


def _int32(values) -> np.ndarray:
    return np.asarray(values, np.int32)
