"""The README's main command, shortened: from the prose inside Python to a converted model that fills masks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHORT = ["train.steps=24", "optim.warmup_steps=5", "train.eval_interval=8", "train.eval_sequences=64", "checkpoint.interval=8"]


def launcher(*arguments, timeout=240):
    return subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.slow
def test_quickstart_goes_from_raw_text_to_a_model_that_fills_masks(tmp_path):
    done = launcher("submit", "configs/quickstart.yaml", f"run.dir={tmp_path}", *SHORT)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("held-out perplexity", "unigram perplexity", "guesses:", "converted model"):
        assert expected in done.stdout, done.stdout
    run = tmp_path / "quickstart"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    finished = next(event for event in events if event["event"] == "finished")
    assert finished["heldout_perplexity"] < finished["heldout_perplexity_before"] / 2
    assert 0 < finished["unigram_perplexity"] < finished["heldout_perplexity_before"]

    from transformers import pipeline

    model = str(run / "converted" / "huggingface")
    guesses = pipeline("fill-mask", model=model, tokenizer=model, device=-1)("Return the <mask> of the list.")
    assert len(guesses) == 5 and all("<mask>" not in guess["sequence"] for guess in guesses)

    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    again = launcher("submit", "configs/quickstart.yaml", f"run.dir={tmp_path}", *SHORT)
    assert again.returncode == 2 and again.stderr.count("launcher: error") == 1
    assert "resume" in again.stderr and "run.name=" in again.stderr and "Traceback" not in again.stderr
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", "unknown key optim.lrr; did you mean lr?"),
        ("train.steps=many", "train.steps must be a whole number"),
        ("train.global_batch_size=33", "use 32 or 48"),
        ("data.train=[{text: /no/such/file.txt}]", "/no/such/file.txt"),
        ("data.train=[{text: 'python:stdlib'}, {path: /no/such/prefix}]", "no such corpus"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, override, message):
    done = launcher("submit", "configs/quickstart.yaml", f"run.dir={tmp_path}", "data.valid_fraction=0", override, timeout=60)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr and done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())
