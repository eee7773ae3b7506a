"""GLUE's files as others hold them: written by pandas, by spreadsheets, by Hugging Face's datasets. What is read is what the
official file says, or the file is refused with what to do."""

import csv
import json

import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.folders import read_sets
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.cells import is_quoted
from tests.finetune.made_glue import write_lines

pandas = pytest.importorskip("pandas")

# As they stand in GLUE's files: quotation marks are text; some sentences stand in them as a whole, some have doubled ones
SENTENCES = ['He said "hi" .', "plain", '"All of it."', '"', '"a ""b"" c"', '""', "it 's 3\" wide", "one, two", "2.5"]
ROWS = [(sentence, i % 2) for i, sentence in enumerate(SENTENCES)]
EXPECTED = [((sentence,), i % 2) for i, sentence in enumerate(SENTENCES)]


@pytest.fixture
def table():
    return pandas.DataFrame(ROWS, columns=["sentence", "label"])


def read(folder, task="sst-2", split="train"):
    return [(example.texts, example.label) for example in build_task(task).read(folder, split)]


def official(path, ending="\n", start="", last="\n"):
    lines = [f"{sentence} \t{label}" for sentence, label in ROWS]
    path.write_text(start + ending.join(["sentence\tlabel", *lines]) + last, encoding="utf-8", newline="")


@pytest.mark.parametrize(
    "options",
    [{}, {"ending": "\r\n", "last": "\r\n"}, {"start": "\ufeff"}, {"last": ""}, {"last": "\n\n\n"}, {"ending": "\n\n"}],
    ids=["as published", "CRLF", "byte order mark", "no last line end", "empty lines at the end", "empty lines between"],
)
def test_line_ends_and_marks_of_a_file_change_no_text(tmp_path, options, capsys):
    official(tmp_path / "train.tsv", **options)
    assert read(tmp_path) == EXPECTED
    assert ("has no line end after its last line (line 10)" in capsys.readouterr().err) == (options == {"last": ""})


@pytest.mark.parametrize(
    "write",
    [
        lambda table, folder: table.to_csv(folder / "train.tsv", sep="\t", index=False),
        lambda table, folder: table.to_csv(folder / "train.tsv", sep="\t"),
        lambda table, folder: table[["label", "sentence"]].to_csv(folder / "train.tsv", sep="\t", index=False),
        lambda table, folder: table.to_csv(folder / "train.tsv", sep="\t", index=False, quoting=csv.QUOTE_ALL),
        lambda table, folder: table.to_csv(folder / "train.tsv", sep="\t", index=False, quoting=csv.QUOTE_NONNUMERIC),
        lambda table, folder: table.to_csv(folder / "train.tsv", sep="\t", index=False, lineterminator="\r\n", encoding="utf-8-sig"),
        lambda table, folder: table.astype({"label": float}).to_csv(folder / "train.tsv", sep="\t", index=False),
        lambda table, folder: table.to_csv(folder / "train.csv", index=False),
        lambda table, folder: table.to_json(folder / "train.jsonl", orient="records", lines=True),
        lambda table, folder: table.to_json(folder / "train.json", orient="records"),
        lambda table, folder: table.to_parquet(folder / "train.parquet"),
        lambda table, folder: table.rename(columns={"sentence": "Sentence", "label": "LABEL"}).to_csv(folder / "train.csv"),
    ],
)
def test_what_pandas_writes_is_read_as_what_it_was_given(tmp_path, table, write):
    write(table, tmp_path)
    assert read(tmp_path) == EXPECTED


def test_a_tab_and_a_line_end_inside_a_quoted_cell_stay_in_its_text(tmp_path, table):
    table.loc[1, "sentence"] = "first\tsecond\nthird\r\nfourth"
    table.to_csv(tmp_path / "train.tsv", sep="\t", index=False)
    assert read(tmp_path)[1] == (("first\tsecond\nthird\r\nfourth",), 1)
    (tmp_path / "train.tsv").write_text('sentence\tlabel\n"a ""b""\t1\n"c ""d"""\t0\n', encoding="utf-8")  # not closed: no pandas'
    assert [texts for texts, _ in read(tmp_path)] == [('"a ""b""',), ('"c ""d"""',)]


@pytest.mark.parametrize(
    "cells, expected",
    [
        (['He said "hi"'], False),  # a mark inside, not doubled
        (['"All of it."', "plain"], False),  # stands in marks without need: pandas would not have put them there
        (['"He said ""hi"""', "plain"], True),
        (['"He said ""hi"""', 'he said "hi"'], False),  # one cell that pandas would have quoted is enough
        (['"""All of it."""'], True),
        (["plain"], False),
        (['"sentence"', '"All of it."', "3"], True),  # every cell but numbers
    ],
)
def test_quoting_is_told_from_the_cells_of_a_file(cells, expected):
    assert is_quoted("".join(f"{cell}\n" for cell in cells), "\t") == expected


def test_a_file_of_both_kinds_of_quotation_marks_is_named(tmp_path, capsys):
    write_lines(tmp_path / "train.tsv", [("sentence", "label"), ('"a ""b"""', 1), ('"c ""d"""', 0), ('e "f"', 0)])
    assert [texts for texts, _ in read(tmp_path)] == [('"a ""b"""',), ('"c ""d"""',), ('e "f"',)]
    assert "train.tsv: 2 of 3 cells with quotation marks look as if pandas had quoted them" in capsys.readouterr().err


def test_real_files_are_not_taken_as_pandas(shared_data):
    paths = [path for path in sorted((shared_data / "glue").rglob("*.tsv")) if path.parent.name != "SST-2"]
    assert len(paths) >= 9
    for path in paths:
        text = path.read_text(encoding="utf-8-sig")
        assert '"' in text and not is_quoted(text, "\t"), path


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_real_mrpc_through_pandas_is_the_same(shared_data, tmp_path, split):
    path = shared_data / "glue/MRPC" / f"{split}.tsv"
    table = pandas.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    table.to_csv(tmp_path / path.name, sep="\t", index=False)
    assert (tmp_path / path.name).read_bytes().count(b'""') > 50
    assert build_task("mrpc").read(tmp_path, split) == build_task("mrpc").read(path.parent, split)


def test_sst2_has_no_space_at_the_end_of_development_and_test_sentences_alike(shared_data):
    folder = shared_data / "glue/SST-2"
    assert (folder / "dev.tsv").read_text(encoding="utf-8").count(" \t") == 872  # as it is published: one in every line
    for split in ("dev", "test"):
        texts = [example.texts[0] for example in build_task("sst-2").read(folder, split)]
        assert len(texts) in (872, 1821) and all(text == text.strip() for text in texts)


def test_the_case_of_the_trailing_space_ends_alike_in_every_split(shared_data, roberta_tokenizer):
    task, folder = build_task("sst-2"), shared_data.parent / "cases/sst2_trailing_space/SST-2"
    if not folder.is_dir():
        pytest.skip("the case is not beside the real data")
    for split in ("train", "dev", "test"):
        items = task.items(task.read(folder, split), roberta_tokenizer, 128, False)
        lone_space = roberta_tokenizer(" ", add_special_tokens=False).input_ids[0]
        assert all(item.sequences[0].ids[-2] != lone_space for item in items)


# Hugging Face's datasets: the names of columns, validation for dev, an idx, labels by number, -1 in a test set
@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
@pytest.mark.parametrize(
    "task, columns, labels, expected",
    [
        ("rte", ("sentence1", "sentence2"), (0, 1), [1, 0]),
        ("mnli", ("premise", "hypothesis"), (0, 1, 2), [2, 1, 0]),
        ("mrpc", ("sentence1", "sentence2"), (0, 1), [0, 1]),
        ("qqp", ("question1", "question2"), (1, 0), [1, 0]),
        ("wnli", ("sentence1", "sentence2"), (0, 1), [0, 1]),
        ("cola", ("sentence",), (0, 1), [0, 1]),
        ("sts-b", ("sentence1", "sentence2"), (0.0, 3.2), [0.0, 3.2]),
    ],
)
def test_exports_of_hugging_faces_datasets_are_read(tmp_path, task, columns, labels, expected, ending):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    split = build_task(task).dev_splits[0]
    for name, values in ((split.replace("dev", "validation"), labels), (split.replace("dev", "test"), [-1] * len(labels))):
        content = {column: [f'{column} "{i}", said' for i in range(len(labels))] for column in columns}
        data = datasets.Dataset.from_dict(content | {"label": list(values), "idx": [7 + i for i in range(len(labels))]})
        getattr(data, f"to_{ending}")(str(tmp_path / (f"{name}-00000-of-00001.parquet" if ending == "parquet" else f"{name}.{ending}")))
    assert [label for _, label in read(tmp_path, task, split)] == expected
    test = build_task(task).read(tmp_path, split.replace("dev", "test"))
    assert [(example.index, example.label) for example in test] == [(str(7 + i), None) for i in range(len(labels))]
    assert test[1].texts == tuple(f'{column} "1", said' for column in columns)


@pytest.mark.parametrize(
    "task, rows, message",
    [
        ("rte", [("sentence1", "sentence2", "label"), ("a", "b", "1")], "label '1' is a number, .* column 'idx'.*0 entailment"),
        ("rte", [("sentence1", "sentence2", "label", "idx"), ("a", "b", "-1", "0")], r"line 2: has no label \('-1'\), as in a test set"),
        ("sst-2", [("sentence", "label"), ("a", "2")], "unknown label '2'; sst-2 has '0', '1'"),
        ("sst-2", [("sentence,label",), ("a,1",)], "has no column 'sentence', but 'sentence,label'; columns are parted by ','"),
        ("sst-2", [("sentence", "sentence", "label"), ("a", "b", "1")], "has the column 'sentence' twice"),
        ("mrpc", [("quality", "sentence1", "sentence2"), ("2", "a", "b")], "unknown label '2'"),
        ("mnli", [("sentence1", "sentence2", "gold_label"), ("a", "b", "-")], "no row has a label but '-'"),
    ],
)
def test_labels_and_columns_that_are_not_known_are_refused(tmp_path, task, rows, message):
    write_lines(tmp_path / "train.tsv", rows)
    with pytest.raises(DataError, match=message):
        read(tmp_path, task)


def test_label_spellings_of_others_are_known(tmp_path):
    write_lines(tmp_path / "train.tsv", [("sentence", "label"), ("a", "positive"), ("b", "negative"), ("c", "1.0")])
    assert [label for _, label in read(tmp_path)] == [1, 0, 1]
    write_lines(tmp_path / "train.tsv", [("premise", "hypothesis", "gold_label"), ("a", "b", "entailment"), ("c", "d", "not_entailment")])
    assert [label for _, label in read(tmp_path, "rte")] == [1, 0]


def test_pairs_without_consensus_are_left_out_with_a_count(tmp_path, capsys):
    rows = [("sentence1", "sentence2", "gold_label"), ("a", "b", "neutral"), ("c", "d", "-"), ("e", "f", "entailment")]
    write_lines(tmp_path / "train.tsv", rows)
    assert [texts for texts, _ in read(tmp_path, "mnli")] == [("a", "b"), ("e", "f")]
    assert "1 of 3 pairs have the label '-' (no consensus) and are left out" in capsys.readouterr().err


def test_a_missing_question_of_qqp_is_an_empty_text(tmp_path, capsys):
    table = pandas.DataFrame([["a", None, 1], ["b", "c", 0]], columns=["question1", "question2", "is_duplicate"])
    table.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    assert read(tmp_path, "qqp") == [(("a", ""), 1), (("b", "c"), 0)]


def test_cola_with_a_header_is_read_by_name(tmp_path):
    write_lines(tmp_path / "train.tsv", [("label", "sentence"), (1, "They drank the pub dry."), (0, "They drank the pub.")])
    assert read(tmp_path, "cola") == [(("They drank the pub dry.",), 1), (("They drank the pub.",), 0)]


def test_the_file_that_is_missing_is_named(tmp_path):
    task = build_task("sst-2")
    with pytest.raises(FinetuneError, match=f"has no train set of sst-2: there is no {tmp_path}/train.tsv; is --data"):
        read_sets(task, tmp_path)
    official(tmp_path / "train.tsv")
    with pytest.raises(FinetuneError, match=f"has no dev set of sst-2: there is no {tmp_path}/dev.tsv"):
        read_sets(task, tmp_path)


def test_several_files_of_a_split_and_a_folder_of_save_to_disk_are_refused(tmp_path, table):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    with pytest.raises(DataError, match="folder of datasets' save_to_disk; export each split"):
        read(tmp_path)
    table.to_csv(tmp_path / "train.csv", index=False)
    assert read(tmp_path) == EXPECTED
    table.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    with pytest.raises(DataError, match="has train.csv and train.jsonl for train; leave one"):
        read(tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("sentence\tlabel\na\t1\n".encode("utf-16"), "train.tsv: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 train.tsv"),
        ("sentence\tlabel\na\t1\n".encode("utf-16-le"), "it is UTF-16 .convert it: iconv -f UTF-16LE"),
        ("sentence\tlabel\nb\t0\nné\t1\n".encode("latin-1"), "line 3: not UTF-8 .*iconv -f WINDOWS-1252"),
    ],
)
def test_other_encodings_are_named_with_what_converts_them(tmp_path, content, message):
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_csv_whose_quotation_mark_is_not_closed_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text('sentence,label\nb,0\n"a,1\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 3: a quotation mark is opened and not closed"):
        read(tmp_path)


def test_superglues_val_is_the_development_set_and_two_files_of_a_split_are_not_chosen_from(tmp_path):
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text('{"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment", "idx": 0}\n')
    assert read(tmp_path, "rte", "train") == read(tmp_path, "rte", "dev") == [(("It rains.", "It is wet."), 1)]
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n")
    with pytest.raises(DataError, match="has train.tsv and train.jsonl for train; leave one"):
        read(tmp_path, "rte", "train")


def test_pairs_with_an_empty_text_and_scores_of_another_scale_are_told(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("sentence1,sentence2,label\nA.,,0.2\nC.,D.,1.0\n")
    assert read(tmp_path, "sts-b") == [(("A.", ""), 0.2), (("C.", "D."), 1.0)]
    told = capsys.readouterr().err
    assert "1 of 2 pairs have an empty text" in told and "no score is above 1" in told and "multiply them by 5" in told
