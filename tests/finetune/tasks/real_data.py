"""Small pieces of the real data sets in their official layouts, and a small random model."""

import json
import random
import re
from pathlib import Path

from robustbert.finetune.tasks.squad.read import read_squad

NUM_EXAMPLES = 64


def build_reader_model(folder: Path, tokenizer, hidden_size: int = 64, num_heads: int = 4, num_positions: int = 512) -> Path:
    """RobertaForMaskedLM with 2 layers and random weights, beside a tokenizer of ours."""
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM

    tokenizer.save(folder)
    config = RobertaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=num_heads,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=num_positions + 2,
        type_vocab_size=1,
    )
    torch.manual_seed(0)
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder


def squad_folder(shared: Path, version: str, folder: Path) -> Path:
    """The questions of the shortest paragraphs, as training and as development set."""
    name = {"1.1": "train-v1.1-derived", "2.0": "dev-v2.0-subset"}[version]
    content = json.loads((shared / "squad" / f"{name}.json").read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    left, chosen = NUM_EXAMPLES, []
    for paragraph in sorted(paragraphs, key=lambda paragraph: len(paragraph["context"])):
        questions = paragraph["qas"][:left]
        left -= len(questions)
        if questions:
            chosen.append(paragraph | {"qas": questions})
    content["data"] = [{"title": "short", "paragraphs": chosen}]
    return _same_splits(folder, f"-v{version}.json", json.dumps(content))


def race_folder(shared: Path, folder: Path) -> Path:
    """The questions of the shortest articles of both levels, one article a line."""
    for level in ("middle", "high"):
        lines = (shared / "race" / f"dev.{level}.jsonl").read_text(encoding="utf-8").splitlines()
        chosen, left = [], NUM_EXAMPLES // 2
        for article in sorted(map(json.loads, lines), key=lambda article: len(article["article"])):
            if left:
                for key in ("questions", "options", "answers"):
                    article[key] = article[key][:left]
                left -= len(article["questions"])
                chosen.append(json.dumps(article))
        _same_splits(folder, f".{level}.jsonl", "\n".join(chosen) + "\n")
    return folder


def winograd_folder(shared: Path, folder: Path) -> Path:
    """WSC's first right references as training and development set."""
    lines = (shared / "wsc" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    right = [line for line in lines if json.loads(line)["label"]][:NUM_EXAMPLES]
    return _same_splits(folder, ".jsonl", "\n".join(right) + "\n", splits=("train", "val"))


def qnli_folder(shared: Path, folder: Path) -> Path:
    """QNLI's form from SQuAD, as it was made: a question with the sentence that answers it, and with another one."""
    rng, rows = random.Random(0), []
    for question in read_squad(shared / "squad" / "train-v1.1-derived.json", "1.1"):
        answer = question.answers[0]
        spans = [match.span() for match in re.finditer(r"[^.!?]+[.!?]*", question.context)]
        right = [span for span in spans if span[0] <= answer.start and answer.start + len(answer.text) <= span[1]]
        wrong = [span for span in spans if span not in right]
        if right and wrong and len(rows) < NUM_EXAMPLES:
            for span, label in ((right[0], "entailment"), (rng.choice(wrong), "not_entailment")):
                sentence = " ".join(question.context[slice(*span)].split())
                rows.append(f"{len(rows)}\t{' '.join(question.text.split())}\t{sentence}\t{label}")
    return _same_splits(folder, ".tsv", "\n".join(["index\tquestion\tsentence\tlabel", *rows, ""]))


def _same_splits(folder: Path, ending: str, text: str, splits: tuple[str, ...] = ("train", "dev")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        (folder / f"{split}{ending}").write_text(text, encoding="utf-8")
    return folder
