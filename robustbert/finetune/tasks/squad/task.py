"""The tasks squad1.1 and squad2.0 (section 5.2)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import Batch, Item, ModelSource, Task
from robustbert.finetune.tasks.squad.answers import Prediction, best_spans, best_texts
from robustbert.finetune.tasks.squad.files import file_contents
from robustbert.finetune.tasks.squad.model import build_span_model, load_span_model, span_scores
from robustbert.finetune.tasks.squad.read import Question, read_squad
from robustbert.finetune.tasks.squad.scores import score_1_1, score_2_0
from robustbert.finetune.tasks.squad.windows import NO_SPAN, WindowOptions, windows_of

THRESHOLD = 0.5  # of the probability of no answer, where none was sought on a development set
_FRACTIONS = ("exact", "f1")


class SquadTask(Task):
    """An item is a window. The given training data is all that is learned from."""

    settings = Settings(lr=1.5e-5, batch_size=48, weight_decay=0.01, epochs=2, max_length=384)
    grid = {"lr": (1.5e-5,), "batch_size": (48,)}
    watched = "f1"

    def __init__(self, version: str):
        self.version, self.name = version, f"squad{version}"
        self.folders = (f"SQuAD{version}", f"squad{version}", "SQuAD", "squad")

    @property
    def has_unanswerable(self) -> bool:
        """Whether questions may have no answer."""
        return self.version == "2.0"

    def read(self, folder: Path, split: str) -> list[Question]:
        """The questions of train-v1.1.json, dev-v1.1.json and so on; the one file whose name begins so will do."""
        path = _file(folder, f"{split}-v{self.version}")
        return read_squad(path, self.version, need_answers=split not in self.test_splits, training=split == "train")

    def items(self, examples: list[Question], tokenizer, max_length: int, training: bool) -> list[Item]:
        """Every window of every question."""
        return [
            Item(number, (encoded,), target=(*window.answer, float(window.answer[0] == NO_SPAN)), detail=window)
            for number, encoded, window in windows_of(examples, tokenizer, WindowOptions(max_length))
        ]

    def build_model(self, source: ModelSource) -> torch.nn.Module:
        return build_span_model(source, self.has_unanswerable)

    def load_model(self, folder: Path) -> torch.nn.Module:
        return load_span_model(folder, self.has_unanswerable)

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """First and last token of the answer, and 1 where there is none."""
        if not training:
            return {}
        first, last, is_without = zip(*(item.target for item in items))
        return {"first": np.array(first, np.int64), "last": np.array(last, np.int64), "is_without": np.array(is_without, np.float32)}

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The mean of the cross-entropies of first and last token; in 2.0 that of answerability is added.

        A window without the whole answer has <s> as its span, as in BERT, and counts as one without an answer.
        """
        start_BS, end_BS, no_answer_B = span_scores(model, batch.inputs)
        losses = (
            F.cross_entropy(start_BS, batch.arrays["first"], reduction="none")
            + F.cross_entropy(end_BS, batch.arrays["last"], reduction="none")
        ) / 2
        if no_answer_B is None:
            return losses
        return losses + F.binary_cross_entropy_with_logits(no_answer_B, batch.arrays["is_without"], reduction="none")

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """Of a window: the scores of its S tokens as first and as last one, and in 2.0 the logit of no answer: (2 S [+ 1],)."""
        start_BS, end_BS, no_answer_B = span_scores(model, batch.inputs)
        outputs = []
        for i, item in enumerate(batch.items):
            parts = [start_BS[i, : item.length], end_BS[i, : item.length]]
            if no_answer_B is not None:
                parts.append(no_answer_B[i : i + 1])
            outputs.append(torch.cat(parts))
        return outputs

    def predictions(self, examples: list[Question], items: list[Item], outputs: list[np.ndarray]) -> list[Prediction]:
        """Of a question's windows the spans with the highest sum of both scores.

        It has no answer as far as that window says so which is most sure of one.
        """
        spans: list[list] = [[] for _ in examples]
        no_answer = np.full(len(examples), np.inf)
        for item, output in zip(items, outputs, strict=True):
            length = item.length
            spans[item.example] += best_spans(item.detail, output[:length], output[length : 2 * length])
            if self.has_unanswerable:
                no_answer[item.example] = min(no_answer[item.example], _sigmoid(output[-1]))
        return [
            Prediction(
                question.id,
                best_texts(question.context, spans[i]),
                float(no_answer[i]) if self.has_unanswerable else None,
            )
            for i, question in enumerate(examples)
        ]

    def metrics(self, examples: list[Question], predictions: list[Prediction]) -> dict[str, float]:
        """What the official scorer says, percents as fractions; in 2.0 at the plain threshold and at the best ones."""
        if not self.has_unanswerable:
            scores = score_1_1(examples, {p.id: p.best_text for p in predictions})
            return {name: value / 100 for name, value in scores.items()}
        scores = score_2_0(
            examples, {p.id: p.best_text for p in predictions}, {p.id: p.no_answer for p in predictions}, THRESHOLD
        )
        fractions = {
            name: value / 100 if name.endswith(_FRACTIONS) else value
            for name, value in scores.items()
            if not name.endswith("total")
        }
        return {"exact_match": fractions.pop("exact"), **fractions}

    def prediction_files(self, split: str, examples: list[Question], predictions: list[Prediction]) -> dict[str, str]:
        """The official prediction file and those beside it, see files.py."""
        return file_contents(split, predictions, THRESHOLD)


def build(name: str) -> SquadTask:
    """The task of this name."""
    return SquadTask(name.removeprefix("squad"))


def _file(folder: Path, start: str) -> Path:
    exact = folder / f"{start}.json"
    found = [exact] if exact.exists() else sorted(folder.glob(f"{start}*.json"))
    if len(found) > 1:
        raise FinetuneError(f"{folder} has {' and '.join(path.name for path in found)}; which one? call it {exact.name}")
    if not found:
        raise FileNotFoundError(exact)
    return found[0]


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(logit))))
