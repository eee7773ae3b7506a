"""tools/finetune from outside: help at once, one-line errors, a kill survived."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustbert.finetune.cli import main
from tests.finetune.made_glue import write_made_glue, write_made_task

TOOL = Path(__file__).resolve().parents[2] / "tools" / "finetune"
TINY = ["--epochs", "2", "--lr", "1e-3", "--max-length", "32", "--save-steps", "2", "--batch-size", "8"]


def words(task, model, data, output, *more):
    return [task, "--model", str(model), "--data", str(data), "--output", str(output), *TINY, *more]


def test_help_answers_at_once_and_has_examples():
    started = time.monotonic()
    done = subprocess.run([sys.executable, TOOL, "--help"], capture_output=True, text=True, timeout=60, check=True)
    assert time.monotonic() - started < 3 and "examples:" in done.stdout
    code = "import sys; sys.argv = ['finetune', '--help']; from robustbert.finetune import cli, tasks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOOL.parents[1]).stdout == "False\n"


@pytest.mark.parametrize(
    "task, more, message",
    [
        ("sst-2", ["--lr", "0"], "--lr must be above 0, it is 0.0"),
        ("sst-2", ["--dropout", "1"], "--dropout must be at least 0 and below 1"),
        ("sst-2", ["--sweep", "--seeds", "1,1"], "--seeds 1,1: different whole numbers"),
        ("glue", ["--tasks", "sst"], "there is no task 'sst'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(tmp_path, tiny_model, capsys, task, more, message):
    data = write_made_glue(tmp_path / "glue", 4, 4, 4)
    assert main(words(task, tiny_model, data, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and error.startswith("tools/finetune: error: ")
    assert not (tmp_path / "out" / "settings.json").exists() and not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--grid", "lr=1e-5"], "grid is for a sweep; add --sweep"),
        (["cluster.nodes=2"], "cluster.nodes=2 is for a sweep"),
        (["--sweep", "nodes=2"], "'nodes=2' is no option"),
        (["--sweep", "--seed", "3"], "a sweep takes --seeds"),
        (["--submit", "x"], "the task is glue"),
        (["--start-from", "x"], "--model and --start-from both name the encoder"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as exit:
        main(words("rte", tmp_path, tmp_path, tmp_path / "out", *more))
    assert exit.value.code == 2 and message in capsys.readouterr().err


def test_damaged_data_is_told_before_the_output_is_taken(tmp_path, tiny_model, capsys):
    folder = write_made_task(tmp_path, "rte")
    (folder / "dev.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\n")
    assert main(words("rte", tiny_model, tmp_path, tmp_path / "out", "--sweep")) == 2
    assert "dev.tsv, line 2: has 3 columns instead of 4" in capsys.readouterr().err
    assert main(words("rte", tiny_model, tmp_path, tmp_path / "out")) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_process_goes_on_to_the_same_result(tmp_path, tiny_model):
    data = write_made_glue(tmp_path / "glue", 64, 16, 4)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(TOOL)]
    subprocess.run([*command, *words("cola", tiny_model, data, tmp_path / "whole")], env=environment, check=True, timeout=120)
    broken = [*command, *words("cola", tiny_model, data, tmp_path / "broken")]
    process = subprocess.Popen(broken, env=environment)
    deadline = time.monotonic() + 100
    while not (tmp_path / "broken" / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(20) == -signal.SIGKILL  # it had not ended by itself
    subprocess.run(broken, env=environment, check=True, timeout=120)
    whole, again = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "broken"))
    assert again["history"] == whole["history"]


@pytest.mark.slow
def test_processes_started_by_torchrun_give_the_same_result(tmp_path, tiny_model):
    data = write_made_glue(tmp_path / "glue", 32, 16, 4)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("one", [sys.executable]), ("two", torchrun)):
        command = [*start, str(TOOL), *words("mrpc", tiny_model, data, tmp_path / name, "--micro-batch-size", "2")]
        subprocess.run(command, env=environment, check=True, timeout=120)
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2) and one["history"] == two["history"]
