"""The task race (section 5.3)."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from robustbert.finetune.models import encoder_with_new_head, load_finetuned
from robustbert.finetune.settings import Settings
from robustbert.finetune.task import Batch, Item, ModelSource, Task
from robustbert.finetune.tasks.classification import mean_of_probabilities
from robustbert.finetune.tasks.race.read import LETTERS, RaceQuestion, read_race
from robustbert.finetune.tasks.race.sequences import accuracies, sequences_of


class RaceTask(Task):
    """An item is a question with its four sequences, each with a score from its first token."""

    name = "race"
    settings = Settings(lr=1e-5, batch_size=16, weight_decay=0.1, epochs=4, micro_batch_size=2)
    grid = {"lr": (1e-5,), "batch_size": (16,)}
    watched = "accuracy"
    folders = ("RACE", "race")
    dev_splits = ("dev", "test")  # both have answers; the best epoch is chosen by the first
    test_splits = ()

    def read(self, folder: Path, split: str) -> list[RaceQuestion]:
        """The questions of train, dev or test, middle and high."""
        return read_race(folder, split)

    def items(self, examples: list[RaceQuestion], tokenizer, max_length: int, training: bool) -> list[Item]:
        """One item a question, in their order."""
        sequences = sequences_of(examples, tokenizer, max_length)
        return [Item(i, four, target=examples[i].answer) for i, four in enumerate(sequences)]

    def build_model(self, source: ModelSource) -> torch.nn.Module:
        from transformers import AutoModelForMultipleChoice

        return encoder_with_new_head(source, AutoModelForMultipleChoice.from_config)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from transformers import AutoModelForMultipleChoice

        return load_finetuned(folder, AutoModelForMultipleChoice)

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """The answers."""
        return {"targets": np.array([item.target for item in items], np.int64)} if training else {}

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The cross-entropy over the four options."""
        return torch.nn.functional.cross_entropy(_scores(model, batch), batch.arrays["targets"], reduction="none")

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The scores of the four options, (4,)."""
        return list(_scores(model, batch))

    def average(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """The mean of the models' probabilities."""
        return mean_of_probabilities(outputs)

    def predictions(self, examples: list[RaceQuestion], items: list[Item], outputs: list[np.ndarray]) -> list[int]:
        """The option with the highest score."""
        return [int(np.argmax(output)) for output in outputs]

    def metrics(self, examples: list[RaceQuestion], predictions: list[int]) -> dict[str, float]:
        """Table 7's: accuracy of all, of middle and of high school."""
        return accuracies(examples, predictions)

    def prediction_files(self, split: str, examples: list[RaceQuestion], predictions: list[int]) -> dict[str, str]:
        """Question to letter; a question is named by its article's id and its number there."""
        letters = {question.id: LETTERS[option] for question, option in zip(examples, predictions, strict=True)}
        return {f"predictions_{split}.json": json.dumps(letters, indent=1) + "\n"}


def build(name: str) -> RaceTask:
    """The task."""
    return RaceTask()


def _scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    inputs = {name: rows.view(len(batch.items), len(LETTERS), -1) for name, rows in batch.inputs.items()}
    return model(**inputs).logits.float()
