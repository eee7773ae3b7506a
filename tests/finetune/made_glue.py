"""Small files in the official form of every GLUE task, with labels that the texts tell."""

from pathlib import Path

import numpy as np

_GOOD, _BAD = ("fine", "bright", "lovely", "warm"), ("dull", "bleak", "harsh", "sour")
_NOUNS = ("film", "house", "river", "song", "garden", "letter", "storm", "market")
_MNLI_LABELS = ("entailment", "neutral", "contradiction")
_MNLI_FRONT = ("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1_parse")
_MNLI_FRONT += ("sentence2_parse", "sentence1", "sentence2")

# Per task: folder; header of train and dev, of test; the row of (number, texts, label), the same for test
FOLDERS = {
    "cola": "CoLA",
    "sst-2": "SST-2",
    "mrpc": "MRPC",
    "sts-b": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}


def write_made_glue(root: Path, num_train: int = 64, num_dev: int = 32, num_test: int = 8) -> Path:
    """All of GLUE below `root`; returns it."""
    for task in FOLDERS:
        write_made_task(root, task, num_train, num_dev, num_test)
    return root


def write_made_task(root: Path, task: str, num_train: int = 64, num_dev: int = 32, num_test: int = 8) -> Path:
    """One task's folder below `root`; returns the folder."""
    folder = root / FOLDERS[task]
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(task))
    sets = [("train", num_train), ("dev", num_dev), ("test", num_test)]
    if task == "mnli":
        sets = [("train", num_train), ("dev_matched", num_dev), ("dev_mismatched", num_dev)]
        sets += [("test_matched", num_test), ("test_mismatched", num_test + 1)]
        write_lines(root / "diagnostic" / "diagnostic.tsv", [("index", "sentence1", "sentence2")] + [(i, *_texts(rng, 0)) for i in range(5)])
    for split, count in sets:
        kind = "test" if split.startswith("test") else split
        write_lines(folder / f"{split}.tsv", _table(task, kind, [(i, int(rng.integers(3))) for i in range(count)], rng))
    return folder


def write_lines(path: Path, rows: list[tuple]) -> Path:
    """Rows of columns as a file; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return path


def _table(task: str, split: str, numbers: list[tuple[int, int]], rng) -> list[tuple]:
    rows = [(i, *_texts(rng, kind), kind) for i, kind in numbers]
    is_test = split == "test"
    match task:
        case "cola" if is_test:
            return [("index", "sentence")] + [(i, a) for i, a, _, _ in rows]
        case "cola":
            return [("gj04", k % 2, "" if k % 2 else "*", a) for i, a, _, k in rows]
        case "sst-2":
            return [("index", "sentence")] + [(i, a) for i, a, _, _ in rows] if is_test else [("sentence", "label")] + [
                (a + " ", k % 2) for _, a, _, k in rows
            ]
        case "mrpc":
            first = "index" if is_test else "\ufeffQuality"
            return [(first, "#1 ID", "#2 ID", "#1 String", "#2 String")] + [
                (i if is_test else k % 2, 100 + i, 200 + i, a, b) for i, a, b, k in rows
            ]
        case "sts-b":
            front = ("index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2")
            table = [(i, "main", "made", "2012", i, "none", "none", a, b, f"{2.5 * k:.3f}") for i, a, b, k in rows]
            return [front] + [row[:-1] for row in table] if is_test else [(*front, "score")] + table
        case "qqp" if is_test:
            return [("id", "question1", "question2")] + [(i, a, b) for i, a, b, _ in rows]
        case "qqp":
            return [("id", "qid1", "qid2", "question1", "question2", "is_duplicate")] + [
                (1000 + i, i, i + 1, a, b, k % 2) for i, a, b, k in rows
            ]
        case "mnli":
            labels = () if is_test else ("label1", "gold_label") if split == "train" else ("label1", "label2", "gold_label")
            return [(*_MNLI_FRONT, *labels)] + [
                (i, i, f"{i}x", "made", "", "", "", "", a, b, *(_MNLI_LABELS[k] for _ in labels)) for i, a, b, k in rows
            ]
        case "qnli" | "rte":
            columns = ("question", "sentence") if task == "qnli" else ("sentence1", "sentence2")
            names = ("not_entailment", "entailment")
            table = [(i, a, b, names[k % 2]) for i, a, b, k in rows]
        case "wnli":
            columns, table = ("sentence1", "sentence2"), [(i, a, b, k % 2) for i, a, b, k in rows]
    return [("index", *columns)] + [row[:-1] for row in table] if is_test else [("index", *columns, "label")] + table


def _texts(rng, kind: int) -> tuple[str, str]:
    """Two texts whose words tell the kind (0, 1, 2) and its parity; a quote stands unpaired in some."""
    noun = _NOUNS[rng.integers(len(_NOUNS))]
    word = (_GOOD if kind % 2 else _BAD)[rng.integers(4)]
    quote = '"' if rng.integers(4) == 0 else ""
    return f"{quote}The {noun} was {word} .", f"It was {('plain', 'odd', 'grand')[kind]} ."
