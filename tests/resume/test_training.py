"""The training's own side: a real run that takes a checkpoint up with another configuration than `launcher resume` has seen."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robustbert.checkpoint.manifest import CheckpointError
from robustbert.config import load_config
from robustbert.data.corpus import IndexedCorpus
from robustbert.data.prepare import prepare_run
from robustbert.data.tokenizer import load_tokenizer
from robustbert.job import Job
from robustbert.run_directory import RunDirectory
from tests.train.small_run import make_run, train, write_text


@pytest.fixture
def run(tmp_path):
    config, run = make_run(tmp_path, "run", ("train.steps=6", "checkpoint.interval=3", "train.eval_interval=6"))
    train(Job(), config, run)
    return config, run


def changed(config, run, *overrides):
    return load_config(run.config_file, overrides)


def test_a_changed_batch_size_goes_on_with_the_next_sample_and_is_recorded(run):
    config, run = run
    train(Job(), changed(config, run, "train.steps=8", "train.global_batch_size=16", "data.masking.probability=0.3"), run)
    assert [line["corpus_samples"].popitem()[1] for line in run.metrics()] == [8, 16, 24, 32, 40, 48, 64, 80]
    event = next(event for event in run.events() if event["event"] == "config_changed")
    keys = [line.partition(":")[0] for line in event["changes"]]
    assert event["step"] == 6 and keys == ["data.masking.probability", "train.steps", "train.global_batch_size"]
    first, last = (event for event in run.events() if event["event"] == "finished")
    assert first["heldout_perplexity_before"] is not None and last["heldout_perplexity_before"] is None, "it was measured with other masks"
    state = json.loads((run.checkpoints / "step_00000008" / "MANIFEST.json").read_text())["state"]
    assert (state["first_data_step"], state["first_sample"], state["samples_per_step"]) == (6, 48, 16)


def test_training_refuses_what_cannot_continue_and_leaves_the_checkpoints(run, tmp_path):
    config, run = run
    refused = {"run.seed=2": "run.seed: 1 -> 2", "model.num_layers=4": "model.num_layers: 2 -> 4", "train.steps=5": "the run has done 6 steps"}
    for override, message in refused.items():
        with pytest.raises(CheckpointError, match=message):
            train(Job(), changed(config, run, override), run)
    write_text(tmp_path / "other.txt", num_documents=70)
    text = dataclasses.replace(config.data.train[0], text=str(tmp_path / "other.txt"))
    other = dataclasses.replace(config.data, train=(text,), tokenizer=str(run.data / "tokenizer"))
    prepare_run(other, tmp_path / "other")
    by_path = f"data.train=[{{path: {tmp_path / 'other' / 'train_0000'}}}]"
    with pytest.raises(CheckpointError, match=r"data.train\[0\]: .*text.txt -> .*train_0000: the run has learned from the former up to step 6"):
        train(Job(), changed(config, run, by_path, "data.valid_fraction=0", f"data.tokenizer={run.data / 'tokenizer'}"), run)
    assert not list(run.checkpoints.glob("rejected_*")) and len(list(run.checkpoints.glob("step_*"))) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_case_of_resume_with_other_text(shared_data, tmp_path):
    """b.txt in the place of a.txt is refused, and the new run that the refusal names reads b.txt under its own name."""
    case = shared_data.parent / "cases" / "resume_with_other_text"
    if not case.is_dir():
        pytest.skip(f"the case is not in {case}")
    shutil.copy(case / "run.yaml", tmp_path)
    subprocess.run([sys.executable, case / "make.py"], cwd=tmp_path, check=True)

    def launcher(*words):
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, "-m", "launcher", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)

    assert launcher("submit", "run.yaml", f"data.tokenizer={shared_data / 'bpe'}").returncode == 0
    run = RunDirectory(tmp_path / "runs" / "t")
    before = run.config_file.read_bytes(), run.metrics_file.read_bytes()
    done = launcher("resume", "t", "train.steps=8", "data.train=[{text: b.txt}]")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "data.train[0]: a.txt -> b.txt" in done.stderr, done.stderr
    assert (run.config_file.read_bytes(), run.metrics_file.read_bytes()) == before
    words = shlex.split(done.stderr.partition("begin a new run with its weights: ")[2])
    begun = launcher(*words[1:])
    assert begun.returncode == 0, begun.stdout + begun.stderr
    new = RunDirectory(tmp_path / "runs" / "t-2")
    assert new.metrics()[-1]["step"] == 8 and new.metrics()[-1]["corpus_samples"] == {"b.txt": 64}
    text = load_tokenizer(new.data / "tokenizer").decode(IndexedCorpus(new.data / "train_0000").tokens[:2000])
    assert "basalt" in text and "amber" not in text
    assert next(event for event in new.events() if event["event"] == "weights_taken")["of_step"] == 6
