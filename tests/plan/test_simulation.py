"""Processes of large jobs built in one process: within bounds, and equal to those of real jobs."""

import dataclasses
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from robustbert.config import load_config
from robustbert.plan.simulation import measure, simulate, simulate_positions
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, Layout, Recipe, opened

ROOT = Path(__file__).resolve().parents[2]
LARGE = ["plan", "configs/large_500k.yaml", "model.vocab_size=50265", "--json"]


def plan(*words):
    """(launcher plan's answer, its peak memory in bytes, which includes that of earlier children)"""
    command = [sys.executable, "-m", "launcher", *LARGE, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


@pytest.mark.slow
def test_large_500k_for_1024_processes_is_built_within_two_minutes_and_8_gb():
    found, peak_bytes = plan()  # the time is the limit of plan()
    assert found["processes"] == 1024 and found["layout"]["data"] == 1024 and len(found["positions"]) == 1
    (position,) = found["positions"]
    assert position["num_parameters"] == 355_451_008  # RoBERTa large's, the vocabulary padded to a multiple of 128
    assert position["weight_bytes"] >= 2 * 355_451_008 and position["gradient_bytes"] >= 4 * 355_451_008
    assert 12 * 355_451_008 / 1024 <= position["optimizer_bytes"] < 13 * 355_451_008 / 1024
    # The paper's day for 100k steps on 1,024 V100s: 9.5 TFLOP/s each, 7.6% of peak.
    assert found["model_flops_a_step"] * 1e5 / 86400 / 1024 == pytest.approx(9.5e12, rel=0.01)
    assert peak_bytes < 8e9


@pytest.mark.slow
def test_every_position_of_a_three_way_layout_is_built():
    words = ["model.vocab_size=50265", "parallel.tensor=8", "parallel.pipeline=4"]
    config = load_config(ROOT / "configs/large_500k.yaml", words)
    places = [(position.tensor, position.pipeline) for position in simulate_positions(config, 1024)]
    assert len(places) == 32 and set(places) == {(tensor, pipeline) for tensor in range(8) for pipeline in range(4)}


def check_real(job, layout, recipe):
    """What a real process of a real job keeps."""
    with opened(job, layout, recipe) as (mesh, model, optimizer):
        return measure(model, optimizer, mesh)


LAYOUTS = {
    "one-process": (Layout(), "fp32"),
    "dp2-fp16": (Layout(data=2), "fp16"),
    "dp2-whole-optimizer-fp16": (Layout(data=2, distributed_optimizer=False), "fp16"),
    "tp2-dp2-sequence-parallel": (Layout(tensor=2, data=2, sequence=True), "fp32"),
    "pp2-dp2": (Layout(pipeline=2, data=2), "fp32"),
    "tp2-pp2-bf16": (Layout(tensor=2, pipeline=2), "bf16"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_simulated_process_keeps_what_a_real_one_does(name, tmp_path):
    layout, precision = LAYOUTS[name]
    recipe = Recipe(precision=precision)
    real = run_on_ranks(check_real, layout.num_ranks, layout, recipe)
    text = "data: {tokenizer: t, train: [{path: p}]}\nmodel: {num_layers: 4, hidden_size: 32, ffn_hidden_size: 72, num_attention_heads: 4}"
    (tmp_path / "small.yaml").write_text(text)
    config = load_config(tmp_path / "small.yaml", [f"cluster.processes_per_node={layout.num_ranks}"])
    config = dataclasses.replace(config, model=MODEL, parallel=layout.parallel, precision=precision, data=dataclasses.replace(config.data, sequence_length=16))
    for rank, kept in enumerate(real):
        assert simulate(config, layout.num_ranks, rank) == kept


@pytest.mark.slow
def test_a_vocabulary_that_is_not_known_is_assumed_and_told():
    words = ["plan", "configs/large_500k.yaml", "cluster.nodes=1", "cluster.processes_per_node=1", "model.num_layers=1", "--json"]
    done = subprocess.run([sys.executable, "-m", "launcher", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "data/gpt2-bpe) is not there: a vocabulary of 50,265 is assumed (model.vocab_size=N)" in done.stderr
    told = subprocess.run([sys.executable, "-m", "launcher", *words, "model.vocab_size=50265"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout == done.stdout and "assumed" not in told.stderr and json.loads(done.stdout)["processes"] == 1


def test_a_layout_that_does_not_divide_is_one_line():
    for words, message in (
        (["parallel.tensor=3"], "parallel.tensor (3) must divide 128"),
        (["parallel.pipeline=5"], "must be a multiple of parallel.pipeline (5)"),
    ):
        command = [sys.executable, "-m", "launcher", "plan", "configs/large_500k.yaml", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
