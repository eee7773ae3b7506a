"""The paper's results, to stand beside ours: Tables 5 and 8 (GLUE), 6 (SQuAD), 7 (RACE). Per cent, as printed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One figure of a task: which of its scores, and what the paper calls it."""

    split: str
    metric: str
    title: str


# The scores that the paper shows for each task; MNLI has two sets
COLUMNS = {
    "mnli": (Column("dev_matched", "accuracy", "MNLI-m"), Column("dev_mismatched", "accuracy", "MNLI-mm")),
    "qnli": (Column("dev", "accuracy", "QNLI"),),
    "qqp": (Column("dev", "accuracy", "QQP"),),
    "rte": (Column("dev", "accuracy", "RTE"),),
    "sst-2": (Column("dev", "accuracy", "SST"),),
    "mrpc": (Column("dev", "accuracy", "MRPC"),),
    "cola": (Column("dev", "matthews", "CoLA"),),
    "sts-b": (Column("dev", "pearson_and_spearman", "STS"),),
    "wnli": (Column("dev", "accuracy", "WNLI"),),
    "qnli-ranking": (Column("dev", "accuracy", "QNLI ranking"),),  # the paper shows classification
    "wnli-ranking": (Column("dev", "accuracy", "WNLI"),),
    "squad1.1": (Column("dev", "exact_match", "SQuAD 1.1 EM"), Column("dev", "f1", "SQuAD 1.1 F1")),
    "squad2.0": (Column("dev", "exact_match", "SQuAD 2.0 EM"), Column("dev", "f1", "SQuAD 2.0 F1")),
    "race": (
        Column("test", "accuracy", "RACE"),
        Column("test", "accuracy_middle", "RACE middle"),
        Column("test", "accuracy_high", "RACE high"),
    ),
}
_GLUE = ("MNLI-m", "MNLI-mm", "QNLI", "QQP", "RTE", "SST", "MRPC", "CoLA", "STS", "WNLI")
_TABLE_8 = ("MNLI-m", "QNLI", "QQP", "RTE", "SST", "MRPC", "CoLA", "STS")  # development sets


def _row(titles: tuple[str, ...], *figures: float | None) -> dict[str, float]:
    return {title: figure for title, figure in zip(titles, figures, strict=True) if figure is not None}


# Table 5, single-task single models on the development sets; RoBERTa: median of five runs
TABLE_5_DEV = {
    "BERT large": _row(_GLUE, 86.6, None, 92.3, 91.3, 70.4, 93.2, 88.0, 60.6, 90.0, None),
    "XLNet large": _row(_GLUE, 89.8, None, 93.9, 91.8, 83.8, 95.6, 89.2, 63.6, 91.8, None),
    "RoBERTa large": _row(_GLUE, 90.2, 90.2, 94.7, 92.2, 86.6, 96.4, 90.9, 68.0, 92.4, 91.3),
}
TABLE_8 = {
    "RoBERTa base, all data, 500k steps": _row(_TABLE_8, 87.6, 92.8, 91.9, 78.7, 94.8, 90.2, 63.6, 91.2),
    "RoBERTa large, BOOKS + WIKI": _row(_TABLE_8, 89.0, 93.9, 91.9, 84.5, 95.3, 90.2, 66.3, 91.6),
    "RoBERTa large, + additional data": _row(_TABLE_8, 89.3, 94.0, 92.0, 82.7, 95.6, 91.4, 66.1, 92.2),
    "RoBERTa large, + pretrain longer 300k": _row(_TABLE_8, 90.0, 94.5, 92.2, 83.3, 96.1, 91.1, 67.4, 92.3),
    "RoBERTa large, + pretrain longer 500k": _row(_TABLE_8, 90.2, 94.7, 92.2, 86.6, 96.4, 90.9, 68.0, 92.4),
}
_SQUAD = ("SQuAD 1.1 EM", "SQuAD 1.1 F1", "SQuAD 2.0 EM", "SQuAD 2.0 F1")
# Table 6, single models on the development sets, without data augmentation
TABLE_6_DEV = {
    "BERT large": _row(_SQUAD, 84.1, 90.9, 79.0, 81.8),
    "XLNet large": _row(_SQUAD, 89.0, 94.5, 86.1, 88.8),
    "RoBERTa large": _row(_SQUAD, 88.9, 94.6, 86.5, 89.4),
}
_RACE = ("RACE", "RACE middle", "RACE high")
# Table 7, single models on the test set
TABLE_7_TEST = {
    "BERT large": _row(_RACE, 72.0, 76.6, 70.1),
    "XLNet large": _row(_RACE, 81.7, 85.4, 80.2),
    "RoBERTa large": _row(_RACE, 83.2, 86.5, 81.3),
}
TABLES = {
    "Table 5": TABLE_5_DEV,
    "Table 8": TABLE_8,
    "Table 6": TABLE_6_DEV,
    "Table 7 (test set)": TABLE_7_TEST,
}
