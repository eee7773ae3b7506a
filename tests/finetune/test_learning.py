"""Every GLUE task learns 64 examples by heart, from random weights, through the command line that users type."""

import json
import shutil

import pytest

from robustbert.finetune.cli import main
from robustbert.finetune.tasks import GLUE, build_task
from tests.finetune.made_glue import write_made_task


@pytest.mark.slow
@pytest.mark.parametrize("name", GLUE)
def test_64_examples_are_learned_to_more_than_95_percent(tmp_path, small_model, name):
    folder, task = write_made_task(tmp_path, name, num_train=64), build_task(name)
    for split in task.dev_splits:
        shutil.copy(folder / "train.tsv", folder / f"{split}.tsv")
    words = [name, "--model", str(small_model), "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    words += ["--lr", "3e-3", "--epochs", "16", "--batch-size", "8", "--dropout", "0", "--attention-dropout", "0"]
    assert main(words) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["watched"]["value"] > 0.95, result["history"]
    assert result["history"][0]["watched"] <= result["watched"]["value"]


@pytest.mark.slow
def test_checkpoint_of_a_run_is_finetuned_as_it_is(tmp_path, tiny_model, capsys):
    from robustbert.convert.convert import convert

    convert(tiny_model, "robustbert", tmp_path / "checkpoint")
    write_made_task(tmp_path, "sst-2", num_train=16, num_dev=8)
    for name, model in (("ours", tmp_path / "checkpoint"), ("theirs", tiny_model)):
        words = ["sst-2", "--model", str(model), "--data", str(tmp_path), "--output", str(tmp_path / "out" / name)]
        assert main([*words, "--epochs", "1", "--lr", "1e-3"]) == 0
    ours, theirs = (json.loads((tmp_path / "out" / name / "result.json").read_text()) for name in ("ours", "theirs"))
    assert ours["history"] == theirs["history"]
    converted = [path for path in (tmp_path / "out" / ".converted").iterdir() if path.suffix != ".lock"]
    assert len(converted) == 1  # the second one needed no conversion
