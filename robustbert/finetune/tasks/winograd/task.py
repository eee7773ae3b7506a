"""The task wnli-ranking (section 5.1): learns from SuperGLUE's WSC, predicts it and WNLI.

A phrase's score is how probable the masked language model finds it in the place of the pronoun: the mean of the
log-probabilities of its tokens, all of them masked. Kocijan et al. (2019) train the right phrase's score above the others'.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustbert.finetune.models import load_finetuned, pretrained_model
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import Batch, Encoded, Item, ModelSource, Task
from robustbert.finetune.tasks.glue import leaderboard_file
from robustbert.finetune.tasks.pairs import PairFrame, ids_and_offsets, pair_frame
from robustbert.finetune.tasks.winograd.candidates import candidates, noun_phrases
from robustbert.finetune.tasks.winograd.read import Reference, read_wnli, read_wsc

# The loss is -q + ALPHA * mean over the candidates c of max(0, c - q + BETA); these are Kocijan et al.'s own defaults.
ALPHA, BETA = 10.0, 0.4
WSC_VALID, WNLI_DEV, WNLI_TEST = "val", "dev", "test"


@dataclass(frozen=True)
class Blank:
    """Where a phrase was masked in a sequence, and the tokens that were there."""

    positions: np.ndarray
    ids: np.ndarray


class WinogradTask(Task):
    """An item is a sentence: one sequence with the query in the pronoun's place, one with each candidate."""

    name = "wnli-ranking"
    watched = "accuracy"
    folders = ("WSC", "wsc")
    # WNLI's development set repeats sentences of WSC's training set: WSC's own is what the best epoch is chosen by.
    dev_splits = (WSC_VALID, WNLI_DEV)
    test_splits = (WNLI_TEST,)

    def read(self, folder: Path, split: str) -> list[Reference]:
        """WSC's train.jsonl and val.jsonl; WNLI's dev.tsv and test.tsv, in a folder WNLI beside or inside."""
        if split in (WNLI_DEV, WNLI_TEST):
            return read_wnli(_wnli_file(folder, f"{split}.tsv"), need_label=split == WNLI_DEV)
        path = folder / f"{split}.jsonl"
        if not path.exists():
            raise FileNotFoundError(path)
        return read_wsc(path)

    def items(self, examples: list[Reference], tokenizer, max_length: int, training: bool) -> list[Item]:
        """In training only where the query is right: which of the others would be right is not known."""
        chosen = [(i, example) for i, example in enumerate(examples) if example.label or not training]
        frame, items = pair_frame(tokenizer), []
        for (i, example), phrases in zip(chosen, noun_phrases([example.text for _, example in chosen])):
            others = candidates(example.text, phrases, example.pronoun, example.query)
            filled = [_filled(example, phrase, tokenizer, frame) for phrase in (example.query, *others)]
            longest = max(len(encoded) for encoded, _ in filled)
            if longest > max_length:
                raise FinetuneError(f"sentence {example.index} has {longest} tokens; use --max-length {longest}")
            sequences, blanks = zip(*filled)
            items.append(Item(i, sequences, target=example.label, detail=blanks))
        return items

    def build_model(self, source: ModelSource) -> torch.nn.Module:
        """The pretrained model with its pretrained head."""
        from transformers import AutoModelForMaskedLM

        return pretrained_model(source, AutoModelForMaskedLM)

    def load_model(self, folder: Path) -> torch.nn.Module:
        from transformers import AutoModelForMaskedLM

        return load_finetuned(folder, AutoModelForMaskedLM)

    def arrays(self, items: Sequence[Item], training: bool) -> dict[str, np.ndarray]:
        """The blanks of all sequences: row, position and former token, (M,) each."""
        blanks = [blank for item in items for blank in item.detail]
        rows = np.repeat(np.arange(len(blanks)), [len(blank.ids) for blank in blanks])
        positions, ids = (np.concatenate([getattr(blank, name) for blank in blanks]) for name in ("positions", "ids"))
        return {"rows": rows, "positions": positions, "ids": ids.astype(np.int64)}

    def losses(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """See ALPHA."""
        return torch.stack([margin_loss(scores) for scores in _scores(model, batch)])

    def outputs(self, model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
        """The scores of the query and of the candidates, (1 + candidates,)."""
        return _scores(model, batch)

    def predictions(self, examples: list[Reference], items: list[Item], outputs: list[np.ndarray]) -> list[bool]:
        """Whether no candidate scores above the query."""
        return [bool((output[0] >= output[1:]).all()) for output in outputs]

    def metrics(self, examples: list[Reference], predictions: list[bool]) -> dict[str, float]:
        right = [prediction == example.label for example, prediction in zip(examples, predictions, strict=True)]
        return {"accuracy": sum(right) / len(right)}

    def prediction_files(self, split: str, examples: list[Reference], predictions: Sequence[bool]) -> dict[str, str]:
        """GLUE's WNLI.tsv."""
        if split != WNLI_TEST:
            return {}
        said = [str(int(prediction)) for prediction in predictions]
        return {"WNLI.tsv": leaderboard_file([example.index for example in examples], said)}


def build(name: str) -> WinogradTask:
    """The task."""
    return WinogradTask()


def margin_loss(scores: torch.Tensor) -> torch.Tensor:
    """The loss of one sentence from the scores of the query (first) and of the candidates."""
    query, others = scores[0], scores[1:]
    if not len(others):
        return -query
    return ALPHA * torch.clamp(others - query + BETA, min=0).mean() - query


def _filled(example: Reference, phrase: str, tokenizer, frame: PairFrame) -> tuple[Encoded, Blank]:
    """The sentence with the phrase in the pronoun's place, and there masks instead of its tokens."""
    start, end = example.pronoun
    text = example.text[:start] + phrase + example.text[end:]
    ids, starts, ends = ids_and_offsets(tokenizer, text)
    is_phrase = (starts < start + len(phrase)) & (ends > start)
    positions = np.flatnonzero(is_phrase) + len(frame.before)
    masked = np.where(is_phrase, tokenizer.mask_token_id, ids)
    return frame.encode_one(masked), Blank(positions, ids[is_phrase])


def _scores(model: torch.nn.Module, batch: Batch) -> list[torch.Tensor]:
    """The scores of every item's sequences; the vocabulary is computed at the blanks only."""
    blanks = [blank for item in batch.items for blank in item.detail]
    x_BSH, rows, positions, ids = model.base_model(**batch.inputs)[0], *map(batch.arrays.get, ("rows", "positions", "ids"))
    head = model.lm_head if hasattr(model, "lm_head") else model.cls
    logits_MV = head(x_BSH[rows, positions]).float()
    said_M = torch.log_softmax(logits_MV, -1).gather(1, ids[:, None])[:, 0]
    means = torch.stack([part.mean() for part in said_M.split([len(blank.ids) for blank in blanks])])
    return list(means.split(batch.num_sequences))


def _wnli_file(folder: Path, name: str) -> Path:
    """WNLI's file, in the folder of that name inside, or beside it, also below a folder of all of GLUE."""
    roots = (folder, folder.parent)
    places = [root / part / "WNLI" / name for root in roots for part in ("", "GLUE", "glue")]
    found = next((place for place in places if place.exists()), folder / name)
    if not found.exists():
        raise FileNotFoundError(found)
    return found
