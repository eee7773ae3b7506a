"""The task qnli-ranking: QNLI as a comparison of one question's sentences (section 5.1).

Of a question's sentences the one with the highest score answers it, the others do not. Where a file has only one sentence
for a question, the training set's sentences that are most like the question compete with it.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustbert.data.errors import DataError
from robustbert.finetune.models import encoder_with_new_head
from robustbert.finetune.task import Batch, Item, ModelSource
from robustbert.finetune.tasks.classification import TextExample
from robustbert.finetune.tasks.glue import LAYOUTS, GlueTask

NUM_MINED = 4
_NOT_ENTAILMENT, _ENTAILMENT = 0, 1
_QUESTIONS_AT_ONCE = 512


@dataclass(frozen=True)
class QnliExample(TextExample):
    """texts: question and sentence. mined: sentences of the training set that compete, where the file has no other."""

    mined: tuple[str, ...] = ()


class QnliRankingTask(GlueTask):
    """An item is a question with all of its sentences; a single score a sequence."""

    def __init__(self):
        super().__init__("qnli", LAYOUTS["qnli"])
        self.name = "qnli-ranking"

    def read(self, folder: Path, split: str) -> list[QnliExample]:
        """The rows of QNLI's file. DataError also where sentences must be mined and there is no training set."""
        rows = super().read(folder, split)
        groups = _by_question(rows)
        alone = [group[0] for group in groups.values() if not _has_rivals(rows, group, split)]
        mined: dict[int, tuple[str, ...]] = {}
        if alone:
            try:
                training = rows if split == "train" else super().read(folder, "train")
            except FileNotFoundError as error:
                raise DataError(
                    f"{folder}: {len(alone)} questions of the {split} set have one sentence only, others are mined from the "
                    f"training set, and there is no {Path(error.filename).name}; put it beside"
                ) from None
            mined = dict(zip(alone, mine([rows[i] for i in alone], training)))
        return [QnliExample(row.index, row.texts, row.label, mined.get(i, ())) for i, row in enumerate(rows)]

    def items(self, examples: list[QnliExample], tokenizer, max_length: int, training: bool) -> list[Item]:
        """In training one item a right sentence, with the wrong ones; otherwise one a question, with all of its sentences.

        target: the place of the right one. detail: the examples whose sentences come first, in their order.
        """
        items = []
        for group in _by_question(examples).values():
            mined = [sentence for i in group for sentence in examples[i].mined]
            if not training:
                items.append(self._item(group, mined, examples, tokenizer, max_length))
                continue
            wrong = [i for i in group if examples[i].label == _NOT_ENTAILMENT]
            for right in (i for i in group if examples[i].label == _ENTAILMENT):
                if wrong or mined:
                    items.append(self._item([right, *wrong], mined, examples, tokenizer, max_length))
        return items

    def build_model(self, source: ModelSource) -> torch.nn.Module:
        """A new head with one score."""
        from transformers import AutoModelForSequenceClassification

        return encoder_with_new_head(source, AutoModelForSequenceClassification.from_config, num_labels=1)

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """None: the right sentence is the first one."""
        return {}

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """The cross-entropy over the sentences of each question."""
        scores = self.outputs(model, batch)
        return torch.stack([-torch.log_softmax(s, 0)[item.target] for s, item in zip(scores, batch.items)])

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The scores of a question's sentences, (sentences,)."""
        return list(model(**batch.inputs).logits.float()[:, 0].split(batch.num_sequences))

    def predictions(self, examples: list[QnliExample], items: list[Item], outputs: list[np.ndarray]) -> list[int]:
        """The sentence with the highest score answers the question, unless that is a mined one."""
        predictions = [_NOT_ENTAILMENT] * len(examples)
        for item, output in zip(items, outputs, strict=True):
            best = int(np.argmax(output))
            if best < len(item.detail):
                predictions[item.detail[best]] = _ENTAILMENT
        return predictions

    def _item(self, group: list[int], mined: list[str], examples, tokenizer, max_length: int) -> Item:
        question = examples[group[0]].texts[0]
        pairs = [TextExample("", (question, sentence)) for sentence in [*(examples[i].texts[1] for i in group), *mined]]
        encoded = super().items(pairs, tokenizer, max_length, training=False)
        return Item(group[0], tuple(item.sequences[0] for item in encoded), target=0, detail=tuple(group))


def build(name: str) -> QnliRankingTask:
    """The task."""
    return QnliRankingTask()


def mine(examples: Sequence[TextExample], training: Sequence[TextExample]) -> list[tuple[str, ...]]:
    """For every example NUM_MINED sentences of the training set that are most like its question (tf-idf, cosine).

    Neither its own sentence, nor one that answers the question there.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    answers = defaultdict(set)
    for example in training:
        if example.label == _ENTAILMENT:
            answers[example.texts[0]].add(example.texts[1])
    sentences = sorted({example.texts[1] for example in training})
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_df=0.2 if len(sentences) > 100 else 1.0)
    by_sentence = vectorizer.fit_transform(sentences).T.tocsr()
    mined = []
    for start in range(0, len(examples), _QUESTIONS_AT_ONCE):
        some = examples[start : start + _QUESTIONS_AT_ONCE]
        alike = (vectorizer.transform([example.texts[0] for example in some]) @ by_sentence).tocsr()
        for example, row in zip(some, alike):
            own = answers[example.texts[0]] | {example.texts[1]}
            order = row.indices[np.lexsort((row.indices, -row.data))]
            # Where too few share a word with the question, any will do.
            places = dict.fromkeys(itertools.chain(order.tolist(), range(NUM_MINED + len(own))))
            rivals = (sentences[i] for i in places if i < len(sentences) and sentences[i] not in own)
            mined.append(tuple(itertools.islice(rivals, NUM_MINED)))
    return mined


def _by_question(examples: Sequence[TextExample]) -> dict[str, list[int]]:
    groups = defaultdict(list)
    for i, example in enumerate(examples):
        groups[example.texts[0]].append(i)
    return groups


def _has_rivals(rows: list[TextExample], group: list[int], split: str) -> bool:
    """Whether the file compares the question's sentences: it has several, in training a wrong one beside a right one."""
    if split != "train":
        return len(group) > 1
    labels = {rows[i].label for i in group}
    return _NOT_ENTAILMENT in labels or _ENTAILMENT not in labels
