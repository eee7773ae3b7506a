"""GLUE's tasks from their official files (section 3.3; Wang et al. 2019b): columns, labels, metrics, and the diagnostic set.

Also from what pandas and Hugging Face's datasets write of them: their columns, and labels by number, are known by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from robustbert.finetune import metrics
from robustbert.finetune.tasks.classification import TextExample, TextTask
from robustbert.finetune.tasks.glue_files import DIAGNOSTIC_SPLIT, split_file
from robustbert.finetune.tasks.tables import Columns, Row, read_rows
from robustbert.json_lines import say_error

_ENTAILMENT = ("not_entailment", "entailment")
_IDX = "idx"  # the column that Hugging Face's exports have, and that says how their labels are numbered
_NO_LABEL = "-1"  # in their test sets
_NO_CONSENSUS = "-"  # MultiNLI's and SNLI's label of a pair that the annotators did not agree on
# Other names of columns: those of Hugging Face's exports, and of MultiNLI and SNLI
_ALIASES = {
    "#1 String": ("sentence1",),
    "#2 String": ("sentence2",),
    "Quality": ("label",),
    "score": ("label",),
    "is_duplicate": ("label",),
    "gold_label": ("label",),
    "label": ("gold_label",),
    "sentence1": ("premise",),
    "sentence2": ("hypothesis",),
    "index": (_IDX, "id"),
    "id": (_IDX, "index"),
}


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
    class_names: tuple[str, ...] = ()  # of Hugging Face's labels, by their number

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
        class_names=("unacceptable", "acceptable"),
    ),
    "sst-2": Layout(
        ("SST-2",), ("sentence",), "label", ("0", "1"), "accuracy", metrics.accuracy, class_names=("negative", "positive")
    ),
    "mrpc": Layout(
        ("MRPC",),
        ("#1 String", "#2 String"),
        "Quality",
        ("0", "1"),
        "accuracy",
        metrics.accuracy_and_f1,
        class_names=("not_equivalent", "equivalent"),
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
        class_names=("not_duplicate", "duplicate"),
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
        class_names=("entailment", "neutral", "contradiction"),
    ),
    "qnli": Layout(
        ("QNLI",), ("question", "sentence"), "label", _ENTAILMENT, "accuracy", metrics.accuracy, class_names=_ENTAILMENT[::-1]
    ),
    "rte": Layout(("RTE",), _SENTENCES, "label", _ENTAILMENT, "accuracy", metrics.accuracy, class_names=_ENTAILMENT[::-1]),
    "wnli": Layout(("WNLI",), _SENTENCES, "label", ("0", "1"), "accuracy", metrics.accuracy, class_names=_ENTAILMENT),
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
        path = split_file(folder, split)
        if split in self.test_splits:
            rows = read_rows(path, Columns(_names(layout.index, *layout.texts)))
            return [TextExample(row[layout.index], _texts(row, layout.texts)) for row in rows]
        columns = Columns(_names(*layout.texts, layout.label), ((_IDX,),), layout.header, layout.damaged_lines)
        rows = read_rows(path, columns)
        agreed = [row for row in rows if row[layout.label] != _NO_CONSENSUS]
        if len(agreed) < len(rows):
            say_error(f"{path}: {len(rows) - len(agreed)} of {len(rows)} pairs have the label '-' (no consensus) and are left out")
        if not agreed:
            raise rows[0].error(f"no row has a label but {_NO_CONSENSUS!r}")
        examples = [TextExample(str(number), _texts(row, layout.texts), self._label(row)) for number, row in enumerate(agreed)]
        self._note(path, examples)
        return examples

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
        if text == _NO_LABEL or not text:
            raise row.error(f"has no label ({text!r}), as in a test set; training and development sets have one in every row")
        if not self.is_regression:
            return self._class(text, row)
        try:
            score = float(text)
        except ValueError:
            raise row.error(f"{text!r} is no score") from None
        low, high = SCORE_RANGE
        if not low <= score <= high:
            raise row.error(f"the score {text} is not between {low:g} and {high:g}")
        return score

    def _note(self, path: Path, examples: list[TextExample]) -> None:
        """What is taken as it is and may be a fault of the file."""
        one_sided = sum(not all(example.texts) for example in examples)
        if one_sided:
            say_error(f"{path}: {one_sided} of {len(examples)} pairs have an empty text, and are taken so")
        scores = [example.label for example in examples if example.label is not None]
        if self.is_regression and len(scores) > 1 and max(scores) <= 1:
            say_error(f"{path}: no score is above 1, and the scores of {self.name} go to {SCORE_RANGE[1]:g}; if these are fifths, multiply them by 5")


    def _class(self, text: str, row: Row) -> int:
        """The class of a label by its official name, or as Hugging Face's datasets name and number it."""
        names, number = self._layout.class_names, text.removesuffix(".0")  # 1.0: pandas, of a column with missing values
        by_number = self.labels == ("0", "1")
        if number in self.labels:
            return self.labels.index(number)
        if text in names:
            return names.index(text) if by_number else self.labels.index(text)
        known = ", ".join(map(repr, self.labels))
        if number.isdecimal() and int(number) < len(names):
            if row.get(_IDX) is not None:
                return self.labels.index(names[int(number)])
            numbering = ", ".join(f"{i} {name}" for i, name in enumerate(names))
            raise row.error(
                f"the label {text!r} is a number, and without a column {_IDX!r}, which Hugging Face's exports have ({numbering}), "
                f"it is not known what it stands for; write {known}"
            )
        raise row.error(f"unknown label {text!r}; {self.name} has {known}")


def build(name: str) -> GlueTask:
    """The task of this name."""
    return GlueTask(name, LAYOUTS[name])


def leaderboard_file(indices: list[str], predictions: list[str]) -> str:
    """The content of a file of GLUE's leaderboard."""
    lines = [f"{index}\t{prediction}" for index, prediction in zip(indices, predictions, strict=True)]
    return "\n".join(["index\tprediction", *lines, ""])


def _names(*columns: str) -> tuple[tuple[str, ...], ...]:
    return tuple((column, *_ALIASES.get(column, ())) for column in columns)


def _texts(row: Row, columns: tuple[str, ...]) -> tuple[str, ...]:
    texts = tuple(row[column] for column in columns)
    if not any(texts):
        raise row.error(f"has no text in {' and '.join(columns)}")
    return texts
