"""GLUE's files as published: every column where it is, and damage named with its file and line."""

import pytest

from robustbert.data.errors import DataError
from robustbert.finetune.tasks import MODULES, build_task
from robustbert.finetune.tasks.glue import LAYOUTS
from tests.finetune.made_glue import write_lines, write_made_task

# Rows of the official files (train, dev, test) as GLUE publishes them; those that are among the real data
OFFICIAL_ROWS = {"sst-2": (67349, 872, 1821), "mrpc": (3668, 408, 1725), "rte": (2490, 277, 3000), "wnli": (635, 71, 146)}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_official_form_is_read(tmp_path, name):
    folder, task = write_made_task(tmp_path, name, 12, 6, 4), build_task(name)
    train = task.read(folder, "train")
    assert len(train) == 12 and all(len(example.texts) == len(train[0].texts) for example in train)
    assert len({example.label for example in train}) == (3 if name in ("mnli", "sts-b") else 2)
    for split in task.dev_splits:
        assert len(task.read(folder, split)) == 6
    for split in task.test_splits[:2]:
        test = task.read(folder, split)
        assert [example.index for example in test] == [str(i) for i in range(len(test))]
        assert all(example.label is None for example in test)


def test_labels_and_texts_stand_where_the_file_has_them(tmp_path):
    folder = write_made_task(tmp_path, "cola")
    write_lines(folder / "train.tsv", [("gj04", 1, "", 'Our friends won\'t buy "this'), ("gj04", 0, "*", "They drank the pub.")])
    assert [(e.texts, e.label) for e in build_task("cola").read(folder, "train")] == [
        (('Our friends won\'t buy "this',), 1),
        (("They drank the pub.",), 0),
    ]
    folder = write_made_task(tmp_path, "sts-b")
    assert {example.label for example in build_task("sts-b").read(folder, "train")} == {0.0, 2.5, 5.0}


def test_a_separator_inside_a_sentence_ends_no_line(tmp_path):
    folder = write_made_task(tmp_path, "sst-2")
    write_lines(folder / "dev.tsv", [("sentence", "label"), ("one\u2028two\x0bthree\rfour", 1)])
    assert build_task("sst-2").read(folder, "dev")[0].texts == ("one\u2028two\x0bthree\rfour",)


def test_diagnostic_set_is_found_beside_mnli(tmp_path):
    folder = write_made_task(tmp_path, "mnli")
    assert len(build_task("mnli").read(folder, "diagnostic")) == 5


@pytest.mark.parametrize("name, rows", OFFICIAL_ROWS.items())
def test_real_files_have_their_published_rows(shared_data, name, rows):
    task = build_task(name)
    folder = shared_data / "glue" / task.folders[0]
    assert tuple(len(task.read(folder, split)) for split in ("train", "dev", "test")) == rows


def test_real_mrpc_and_rte_rows(shared_data):
    mrpc = build_task("mrpc").read(shared_data / "glue/MRPC", "dev")[1]
    assert mrpc.label == 0 and mrpc.texts[1].startswith('His wife said he was " 100 percent behind George Bush "')
    rte = build_task("rte").read(shared_data / "glue/RTE", "dev")
    assert [example.label for example in rte[:2]] == [0, 1] and rte[0].texts[1] == "Christopher Reeve had an accident."


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text.replace("sentence2\tlabel", "sentence3\tlabel"), "line 1: has no column 'sentence2'"),
        (lambda text: text.replace("\tentailment\n", "\tmaybe\n", 1), "unknown label 'maybe'; rte has 'not_entailment', 'entailment'"),
        (lambda text: text.replace("\tentailment\n", "\n", 1), "has 3 columns instead of 4"),
        (lambda text: text[:-3], "unknown label 'not_entailme'"),
        (lambda text: text[:-20], "has 3 columns instead of 4"),
        (lambda text: text.split("\n")[0] + "\n", "has no examples"),
        (lambda text: "", "is empty"),
        (lambda text: "index\tsentence1\tsentence2\tlabel\n0\t \t \tentailment\n", "line 2: has no text in sentence1 and sentence2"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, damage, message):
    path = write_made_task(tmp_path, "rte") / "train.tsv"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(DataError) as error:
        build_task("rte").read(path.parent, "train")
    assert message in str(error.value) and str(error.value).startswith(str(path))


def test_line_that_is_not_utf8_is_named(tmp_path):
    path = write_made_task(tmp_path, "rte") / "dev.tsv"
    lines = path.read_bytes().split(b"\n")
    lines[4] = lines[4].replace(b"The", b"Th\xe9", 1)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="dev.tsv, line 5: not UTF-8"):
        build_task("rte").read(path.parent, "dev")


def test_scores_of_stsb_are_checked(tmp_path):
    path = write_made_task(tmp_path, "sts-b") / "dev.tsv"
    text = path.read_text(encoding="utf-8")
    for score, message in (("high", "'high' is no score"), ("7.5", "7.5 is not between 0 and 5"), ("nan", "nan is not between")):
        path.write_text(text.replace("2.500\n", f"{score}\n", 1), encoding="utf-8")
        with pytest.raises(DataError, match=message):
            build_task("sts-b").read(path.parent, "dev")


def test_qqp_leaves_out_its_few_damaged_lines_and_no_more(tmp_path, capsys):
    path = write_made_task(tmp_path, "qqp", num_train=40) / "train.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[7] = "\t".join(lines[7].split("\t")[:4])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert len(build_task("qqp").read(path.parent, "train")) == 39
    assert "1 of 40 lines are damaged and left out, the first is line 8" in capsys.readouterr().err
    lines[8] = "\t".join(lines[8].split("\t")[:4])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 8: has 4 columns instead of 6"):
        build_task("qqp").read(path.parent, "train")


def test_every_name_builds_a_task_of_that_name():
    assert [build_task(name).name for name in MODULES] == list(MODULES)
    with pytest.raises(ValueError, match="no task 'sst'; known are"):
        build_task("sst")
