"""GLUE's tasks from their official files (section 3.3; Wang et al. 2019b): columns, labels, metrics, and the diagnostic set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robustbert.finetune import metrics
from robustbert.finetune.tasks.classification import TextExample, TextTask
from robustbert.finetune.tasks.tsv import Row, read_rows

_ENTAILMENT = ("not_entailment", "entailment")
DIAGNOSTIC_SPLIT = "diagnostic"  # AX: GLUE's diagnostic set, answered by the model of MNLI


@dataclass(frozen=True)
class Layout:
    """One task's files."""

    folders: tuple[str, ...]
    texts: tuple[str, ...]  # the columns of the text, or of the pair
    label: str
    labels: tuple[str, ...]  # by class; empty: a score
    watched: str
    score: Callable[[list, list], dict]
    index: str = "index"  # the test set's column
    header: tuple[str, ...] | None = None  # of training and development files without a line for it
    dev_files: tuple[str, ...] = ("dev",)
    test_files: tuple[str, ...] = ("test",)
    submission_files: tuple[str, ...] | None = None  # by test file; by default the folder's name
    damaged_lines: bool = False

    @property
    def submission_names(self) -> tuple[str, ...]:
        return self.submission_files or (f"{self.folders[0]}.tsv",)


_SENTENCES = ("sentence1", "sentence2")
LAYOUTS = {
    "cola": Layout(
        ("CoLA",),
        ("sentence",),
        "label",
        ("0", "1"),
        "matthews",
        metrics.matthews,
        header=("source", "label", "original_label", "sentence"),
    ),
    "sst-2": Layout(("SST-2",), ("sentence",), "label", ("0", "1"), "accuracy", metrics.accuracy),
    "mrpc": Layout(
        ("MRPC",), ("#1 String", "#2 String"), "Quality", ("0", "1"), "accuracy", metrics.accuracy_and_f1
    ),
    "sts-b": Layout(("STS-B",), _SENTENCES, "score", (), "pearson_and_spearman", metrics.correlations),
    "qqp": Layout(
        ("QQP",),
        ("question1", "question2"),
        "is_duplicate",
        ("0", "1"),
        "accuracy",
        metrics.accuracy_and_f1,
        index="id",
        damaged_lines=True,
    ),
    "mnli": Layout(
        ("MNLI",),
        _SENTENCES,
        "gold_label",
        ("contradiction", "neutral", "entailment"),
        "accuracy",
        metrics.accuracy,
        dev_files=("dev_matched", "dev_mismatched"),
        test_files=("test_matched", "test_mismatched", DIAGNOSTIC_SPLIT),
        submission_files=("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"),
    ),
    "qnli": Layout(("QNLI",), ("question", "sentence"), "label", _ENTAILMENT, "accuracy", metrics.accuracy),
    "rte": Layout(("RTE",), _SENTENCES, "label", _ENTAILMENT, "accuracy", metrics.accuracy),
    "wnli": Layout(("WNLI",), _SENTENCES, "label", ("0", "1"), "accuracy", metrics.accuracy),
}
SCORE_RANGE = (0.0, 5.0)  # STS-B


class GlueTask(TextTask):
    """A task of GLUE, read from its folder of .tsv files."""

    def __init__(self, name: str, layout: Layout):
        super().__init__(name, layout.labels, layout.watched, layout.score)
        self.folders, self.dev_splits, self.test_splits = layout.folders, layout.dev_files, layout.test_files
        self._layout = layout

    def read(self, folder: Path, split: str) -> list[TextExample]:
        """The examples of train, dev and test (MNLI: dev_matched, ..., diagnostic); see Task."""
        layout = self._layout
        path = _file(folder, split)
        if split in self.test_splits:
            wanted = (layout.index, *layout.texts)
            rows = read_rows(path, wanted)
            return [TextExample(row[layout.index], _texts(row, layout.texts)) for row in rows]
        rows = read_rows(path, (*layout.texts, layout.label), layout.header, layout.damaged_lines)
        return [
            TextExample(str(number), _texts(row, layout.texts), self._label(row)) for number, row in enumerate(rows)
        ]

    def prediction_files(self, split: str, examples: list[TextExample], predictions: list) -> dict[str, str]:
        """The leaderboard's file of a test set: index and prediction, labels by their names."""
        if split not in self.test_splits:
            return {}
        name = self._layout.submission_names[self.test_splits.index(split)]
        if self.is_regression:
            said = [f"{min(max(score, SCORE_RANGE[0]), SCORE_RANGE[1]):.3f}" for score in predictions]
        else:
            said = [self.labels[i] for i in predictions]
        return {name: leaderboard_file([example.index for example in examples], said)}

    def _label(self, row: Row) -> int | float:
        text = row[self._layout.label]
        if not self.is_regression:
            if text not in self.labels:
                raise row.error(f"unknown label {text!r}; {self.name} has {', '.join(map(repr, self.labels))}")
            return self.labels.index(text)
        try:
            score = float(text)
        except ValueError:
            raise row.error(f"{text!r} is no score") from None
        low, high = SCORE_RANGE
        if not low <= score <= high:
            raise row.error(f"the score {text} is not between {low:g} and {high:g}")
        return score


def build(name: str) -> GlueTask:
    """The task of this name."""
    return GlueTask(name, LAYOUTS[name])


def leaderboard_file(indices: list[str], predictions: list[str]) -> str:
    """The content of a file of GLUE's leaderboard."""
    lines = [f"{index}\t{prediction}" for index, prediction in zip(indices, predictions, strict=True)]
    return "\n".join(["index\tprediction", *lines, ""])


def _file(folder: Path, split: str) -> Path:
    if split == DIAGNOSTIC_SPLIT:  # published in a folder of its own, beside MNLI's
        folders = (folder, *(folder.parent / name for name in ("diagnostic", "AX")))
        places = [place / name for place in folders for name in ("diagnostic.tsv", "AX.tsv")]
        return next((path for path in places if path.exists()), places[0])
    return folder / f"{split}.tsv"


def _texts(row: Row, columns: tuple[str, ...]) -> tuple[str, ...]:
    texts = tuple(row[column] for column in columns)
    if not any(text.strip() for text in texts):
        raise row.error(f"has no text in {' and '.join(columns)}")
    return texts
