"""Projections: parts that can be checked by hand, the order of layouts, what is refused; and published figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.published_figures import compare_with_deepspeed
from robustbert.config import ConfigError, load_config
from robustbert.plan.estimate import StepParts, collective_seconds, compute_seconds, step_parts, step_time
from robustbert.hardware import load_profile, profile_names
from robustbert.plan.reliability import estimate_reliability
from robustbert.plan.search import search_layouts, with_candidate
from robustbert.plan.simulation import simulate_step
from robustbert.plan.trace import Collective, Work
from robustbert.throughput import peak_flops

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model: {num_layers: 8, hidden_size: 256, ffn_hidden_size: 1024, num_attention_heads: 8, vocab_size: 5000}\n"
    "train: {micro_batch_size: 4, global_batch_size: 256}\n"
    "data: {tokenizer: t, train: [{path: p}], sequence_length: 128}\n"
    "precision: fp16\ncluster: {nodes: 2, processes_per_node: 8}\n"
)


def small(tmp_path, *overrides):
    (tmp_path / "run.yaml").write_text(SMALL)
    return load_config(tmp_path / "run.yaml", overrides)


def plan(*words):
    command = [sys.executable, "-m", "launcher", "plan", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_every_profile_is_whole():
    assert {"v100_dgx1", "a100", "h100", "h200", "cpu_2_cores"} <= set(profile_names())
    for name in profile_names():
        profile = load_profile(name)
        assert profile.fits(0) and not profile.fits(profile.memory_bytes)
        assert all(profile.matmul_flops.of(p) <= profile.peak_flops.of(p) for p in ("fp16", "bf16", "fp32"))
    with pytest.raises(ConfigError, match="there are a100"):
        load_profile("v1000")


@pytest.mark.parametrize(
    ("cuda_name", "profile"),
    [
        ("Tesla V100-SXM2-32GB", "v100_dgx1"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_gpus_peak_is_found_by_the_name_that_cuda_gives_it(cuda_name, profile):
    for precision in ("fp16", "bf16", "fp32"):
        assert peak_flops(cuda_name, precision) == load_profile(profile).peak_flops.of(precision)
    devices = {name: load_profile(name).device for name in profile_names()}
    assert [name for name, device in devices.items() if device and device in cuda_name] == [profile]
    assert peak_flops("cpu", "fp32") is None


def test_an_h200_is_an_h100_with_more_and_faster_memory():
    h100, h200 = load_profile("h100"), load_profile("h200")
    assert h200.peak_flops == h100.peak_flops
    assert h200.memory_bytes > 1.7 * h100.memory_bytes and h200.memory_bytes_per_s > 1.4 * h100.memory_bytes_per_s


def test_a_ring_takes_its_bytes_over_the_narrowest_link():
    v100 = load_profile("v100_dgx1")
    in_node = collective_seconds(Collective("all_reduce", tuple(range(8)), 10**9), 0, v100, 8)
    assert in_node == pytest.approx(2 * 7 / 8 * 1e9 / 120e9, rel=0.01)
    all_of_two_nodes = collective_seconds(Collective("all_reduce", tuple(range(16)), 10**9), 0, v100, 8)
    assert all_of_two_nodes == pytest.approx(2 * 15 / 16 * 1e9 / 40e9, rel=0.01)
    one_a_node = collective_seconds(Collective("all_gather", (0, 8, 16, 24), 10**9), 0, v100, 8)
    assert one_a_node == pytest.approx(3 / 4 * 1e9 / (40e9 / 8), rel=0.01)  # eight such groups share the node's network


def test_a_run_that_has_fewer_processes_on_a_node_crosses_nodes_sooner():
    v100, eight = load_profile("v100_dgx1"), Collective("all_reduce", tuple(range(8)), 10**9)
    assert collective_seconds(eight, 0, v100, 4) > 2.5 * collective_seconds(eight, 0, v100, 8)


def test_an_operator_takes_the_longer_of_its_products_and_its_bytes():
    v100 = load_profile("v100_dgx1")
    assert compute_seconds(Work([(83e12, 1, True)]), "fp16", v100) == pytest.approx(1.0)
    assert compute_seconds(Work([(1.0, 790_000_000_000, True)]), "fp16", v100) == pytest.approx(1.0)
    assert compute_seconds(Work([(0.0, 8, True)] * 1000), "fp16", v100) == pytest.approx(1000 * v100.operator_s)


def test_a_pipeline_waits_for_its_bubble():
    parts = StepParts(1.0, 0.3, 0.5, 0.1, 0, 0, 0, 0, 2.0, 0, 0)
    time = step_time(parts, num_micro_batches=6, num_stages=4)
    assert time.total_s == pytest.approx(6 * 1.0 + 6 * 0.5 + 6 * 0.1 + 3 * 1.5 + 2.0)


def test_the_best_checkpoint_interval_is_the_best():
    def overhead(steps):
        return estimate_reliability(1e6, 0.5, steps, 128, save_s=3.0, restart_s=120, node_days=264).overhead

    found = estimate_reliability(1e6, 0.5, 1000, 128, save_s=3.0, restart_s=120, node_days=264)
    assert found.hours_between_failures == pytest.approx(264 * 24 / 128)
    assert found.best_overhead <= min(overhead(round(found.best_interval_steps * f)) for f in (0.5, 0.8, 1.25, 2))
    assert found.restarts == pytest.approx(1e6 * (1 + overhead(1000)) / (264 * 86400 / 128))


def test_recomputation_repeats_the_layers_forward_pass(tmp_path):
    plain, again = (simulate_step(small(tmp_path, f"parallel.recompute={r}"), 16, 0) for r in ("none", "full"))
    assert again.micro_batches.flops == pytest.approx(plain.micro_batches.flops * 4 / 3, rel=0.1)  # the head is not repeated
    assert again.activation_bytes < plain.activation_bytes / 2


def test_tensor_parallel_ranks_exchange_what_the_layers_send(tmp_path):
    record = simulate_step(small(tmp_path, "parallel.tensor=2"), 16, 0)
    of_layers = [c for c in record.micro_batches.collectives if record.axes.get(c.ranks) == "tensor" and c.num_bytes == 4 * 128 * 256 * 2]
    # forward: attention and feed-forward of 8 layers, the embedding; backward: the same layers' inputs.
    assert len(of_layers) == record.num_micro_batches * (4 * 8 + 1)


@pytest.mark.slow
def test_a_search_finds_the_layout_that_is_fastest_when_simulated_in_whole(tmp_path):
    config, v100 = small(tmp_path, "cluster.nodes=1", "cluster.processes_per_node=2", "model.num_layers=4"), load_profile("v100_dgx1")
    found = search_layouts(config, v100)
    assert found[0].fits and {c.tensor for c in found} >= {1, 2} and {c.recompute for c in found} == {"none", "full"}
    for candidate in (found[0], found[len(found) // 2]):  # the sketch is near the whole
        whole = with_candidate(config, candidate)
        parts = step_parts(simulate_step(whole, 2, 0), whole, 2, v100)
        time = step_time(parts, whole.num_micro_batches(2), candidate.pipeline)
        assert candidate.time.total_s == pytest.approx(time.total_s, rel=0.2)
        assert candidate.memory_bytes == pytest.approx(parts.kept_bytes + parts.activation_bytes, rel=0.1)


@pytest.mark.slow
def test_what_cannot_fit_is_refused_with_the_nearest_layout_that_does(tmp_path):
    small(tmp_path)
    narrow = ["cluster.nodes=1", "cluster.processes_per_node=2", "model.num_layers=2"]
    profile = (ROOT / "robustbert/hardware/profiles/v100_dgx1.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text(profile.replace("memory_bytes: 34.0e9", "memory_bytes: 1.66e9"))
    done = plan(str(tmp_path / "run.yaml"), "--hardware", str(tmp_path / "tiny.yaml"), "train.micro_batch_size=16", *narrow)
    assert done.returncode == 1 and "does not fit" in done.stderr and done.stderr.count("\n") == 1
    overrides = done.stderr.partition("the nearest layout that fits: ")[2].split()
    again = plan(str(tmp_path / "run.yaml"), "--hardware", str(tmp_path / "tiny.yaml"), "--json", *narrow, *overrides)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["fits"]


@pytest.mark.slow
def test_published_figures_that_nothing_was_fitted_to():
    for comparison in compare_with_deepspeed():  # the paper's own 9.5 TFLOP/s: tests/plan/test_simulation.py
        assert comparison.ratio == pytest.approx(1, abs=0.25), comparison
