"""benchmarks.gpu: the budget, the isolation of its stages, its table and files; and one rehearsal of all of it on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from benchmarks.gpu import clock, machine, sharding
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.attention_reference import compare, segment_attention
from benchmarks.gpu.commands import verdicts
from benchmarks.gpu.context import Context, Settings
from benchmarks.gpu.learn import steps_within
from benchmarks.gpu.numerics import differences
from benchmarks.gpu.peers import peer_batch
from benchmarks.gpu.planned import profile_of
from benchmarks.gpu.record import write_output
from benchmarks.gpu.runner import Runner
from benchmarks.gpu.stages import GROUPS, STAGES, Outcome, Stage, UnknownStage, choose, limit_of
from benchmarks.gpu.speed import Case, cases
from benchmarks.gpu.table import WIDTH, describe, progress_line
from benchmarks.gpu.train_job import TrainingFailed
from robustbert.data.batches import Batch

ROOT = Path(__file__).resolve().parents[2]
FAKES = "tests.benchmarks.gpu_stages"


def fake(name: str, least_s: float = 0, limit_s: float = 30, alone: bool = False, group: str = "check") -> Stage:
    return Stage(name.replace("_", "-"), group, f"{FAKES}:{name}", least_s, limit_s, alone)


def run_stages(tmp_path, *stages: Stage, seconds: float = 60, workers: int = 2) -> dict[str, Outcome]:
    told = []
    outcomes = Runner(Settings(True, tmp_path), seconds, workers, told.append).run(list(stages))
    assert told == outcomes, "every outcome is reported"
    return {outcome.stage.name: outcome for outcome in outcomes}


def test_what_goes_wrong_in_a_stage_ends_no_other(tmp_path):
    found = run_stages(tmp_path, fake("raises"), fake("dies"), fake("fails_a_check"), fake("good", alone=True))
    assert found["raises"].result == "error" and found["raises"].values == {"before": 1}
    assert found["raises"].text == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert found["dies"].result == "error" and "SIGSEGV" in found["dies"].text
    assert found["fails-a-check"].result == "failed" and found["fails-a-check"].text == "FAILED: second; one of two"
    assert found["fails-a-check"].values["first"]["passed"] and not found["fails-a-check"].values["second"]["passed"]
    assert (found["good"].result, found["good"].text, found["good"].values) == ("ok", "3.5 of something", {"figure": 3.5})


def test_a_stage_that_hangs_is_killed_at_its_limit_with_all_its_processes(tmp_path):
    hung = run_stages(tmp_path, fake("hangs", limit_s=2))["hangs"]
    assert hung.result == "killed" and 2 <= hung.seconds < 10
    assert hung.text == "not ended after 2 s; last: waiting for a collective"
    assert not any(is_running(hung.values[name]) for name in ("pid", "child"))


def test_a_stage_leaves_no_process_behind(tmp_path):
    ended = run_stages(tmp_path, fake("leaves_a_process"))["leaves-a-process"]
    assert ended.result == "ok" and not is_running(ended.values["child"])


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_no_longer_fits_is_skipped_and_the_limit_is_what_is_left(tmp_path):
    found = run_stages(tmp_path, fake("hangs", limit_s=1000), fake("good", least_s=50, alone=True), seconds=3)
    assert found["hangs"].result == "killed" and found["hangs"].seconds < 6
    assert found["good"].result == "skipped" and found["good"].text == "0 s left, it needs 50"


def test_without_prepared_data_everything_else_is_skipped(tmp_path):
    broken = Stage("prepare", "check", f"{FAKES}:raises", 0, 30, alone=True)
    found = run_stages(tmp_path, broken, fake("good"))
    assert found["prepare"].result == "error" and found["good"].text == "there is no prepared data"


def test_checks_run_side_by_side_and_measurements_alone(tmp_path):
    def times(name, alone):
        return Stage(name, "check", f"{FAKES}:notes_its_time", 0, 30, alone)

    # So many workers that both checks are started before either of them has slept.
    found = run_stages(tmp_path, times("a", False), times("b", False), times("c", True), times("d", True), workers=4)
    spans = {name: (outcome.values["started"], outcome.values["ended"]) for name, outcome in found.items()}

    def overlap(one, other):
        return spans[one][0] < spans[other][1] and spans[other][0] < spans[one][1]

    assert overlap("a", "b")
    assert not any(overlap(one, other) for one, other in (("a", "c"), ("b", "c"), ("c", "d")))


def test_stages_are_chosen_by_name_or_group_and_prepared_first():
    assert choose(None) == list(STAGES)
    assert [stage.name for stage in choose("peers, fp32")] == ["prepare", "fp32", "peers"]
    assert [stage.name for stage in choose("speed")] == ["prepare", "rates", "speed-base", "speed-large", "peers"]
    with pytest.raises(UnknownStage, match="no stage or group spede; there are prepare, fp32"):
        choose("spede")


def test_what_the_others_leave_is_shared_by_the_stages_that_can_use_it():
    grows, fixed = Stage("g", "speed", "", 0, 40, alone=True, grows=True), Stage("f", "check", "", 0, 50)
    assert limit_of(fixed, [grows], 1000) == 50
    assert limit_of(grows, [fixed, grows], 40 + 50 + 40 + 60) == 70, "half of the 60 s that are left"
    assert limit_of(grows, [fixed], 70) == 40 and limit_of(grows, [fixed], 30) == 30
    assert limit_of(grows, [], 500) == 500


def test_every_stage_names_a_function():
    import importlib

    for stage in STAGES:
        module, _, function = stage.target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), stage.name
        assert stage.least_s <= stage.limit_s and len(stage.name) <= 12


def outcomes_of_all(text: str) -> list[Outcome]:
    table = {"title": "a table", "columns": ["model", "tokens/s"], "rows": [["roberta-base", "640,000"], ["roberta-large", "1"]]}
    return [Outcome(stage, "ok", text, 12.3, {"tables": [table]} if stage.name == "rates" else {}) for stage in STAGES]


def test_the_table_is_short_whatever_the_stages_say():
    lines = describe(outcomes_of_all("word " * 1000), "one card")
    assert max(map(len, lines)) <= WIDTH and len("\n".join(lines)) < 12_000
    assert lines[0] == "one card" and lines[2].startswith("prepare") and lines[-1] == f"{len(STAGES)} ok"
    assert "roberta-base    640,000" in lines and "roberta-large         1" in lines


def test_the_table_has_the_stages_in_their_order_however_they_ended():
    outcomes = list(reversed(outcomes_of_all("done")))
    lines = describe(outcomes, "one card")
    assert [line.split()[0] for line in lines[2 : 2 + len(STAGES)]] == [stage.name for stage in STAGES]


def test_every_table_of_a_rehearsal_says_so():
    lines = describe(outcomes_of_all("done"), "rehearsal on CPU, no figures", is_rehearsal=True)
    assert "rehearsal" in lines[0] and "a table (rehearsal, no figures)" in lines


def test_a_progress_line_has_stage_result_and_figure():
    line = progress_line(Outcome(STAGES[1], "failed", "FAILED: first step; 3e-3", 8.2), 75.0)
    assert line.split() == ["[", "75", "s]", "fp32", "failed", "8", "s", "FAILED:", "first", "step;", "3e-3"]


def test_at_most_eight_files_are_left_and_an_earlier_calls_numbers_are_kept(tmp_path):
    settings = Settings(
        True, tmp_path / "work", {"cards": [], "cores": 2, "driver": None, "torch": "2", "nccl": None, "cudnn": None}
    )
    settings.logs.mkdir(parents=True)
    settings.results.mkdir()
    (settings.results / "trace.json.gz").write_bytes(b"x")
    for stage in STAGES:
        (settings.logs / f"{stage.name}.log").write_bytes(b"y" * 2_000_000)
    write_output(tmp_path / "out", settings, outcomes_of_all("first"))
    write_output(tmp_path / "out", settings, [Outcome(STAGES[1], "failed", "second")])
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert files == sorted([*(f"{group}.json" for group in GROUPS), "log.txt", "trace.json.gz"])
    assert len(files) + 1 <= 8, "record.md is beside them"
    assert sum(700_000 for _ in STAGES) < 15 * 2**20
    kept = json.loads((tmp_path / "out" / "check.json").read_text())
    assert kept["fp32"]["text"] == "second" and kept["precision"]["text"] == "first" and kept["rehearsal"] is True


def test_settings_come_back_from_json(tmp_path):
    settings = Settings(False, tmp_path, {"cards": [{"name": "NVIDIA H100 80GB HBM3"}]}, data=tmp_path / "data")
    assert Settings.from_json(settings.as_json()) == settings and settings.num_gpus == 1


def test_a_context_keeps_numbers_as_they_come(tmp_path):
    context = Context("one", Settings(True, tmp_path), 30)
    context.record(a=1)
    context.check("b", False, difference=0.5)
    assert Context("two", Settings(True, tmp_path), 30).of_stage("one") == {"a": 1, "b": {"passed": False, "difference": 0.5}}
    assert context.failures == ["b"] and context.of_stage("none") == {}


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "find", lambda: {"cards": [], "cores": 2})
    assert main(["--minutes", "1", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "benchmarks.gpu: error: no CUDA GPU is visible here (torch.cuda.is_available() is false); --rehearse runs every stage on the CPU"
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rehearse", "--record"], "a rehearsal has none"),
        (["--rehearse", "--stages", "fast"], "no stage or group fast"),
        (["--minutes", "0"], "above 0"),
    ],
)
def test_a_command_that_cannot_be_used_gets_one_line(arguments, words, capsys, tmp_path):
    assert main(["--minutes", "1", "--output", str(tmp_path / "out"), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_missing_package_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(machine, "missing_packages", lambda: ["megatron"])
    assert main(["--minutes", "1", "--output", str(tmp_path), "--rehearse"]) == 2
    assert "megatron not installed" in capsys.readouterr().err


def test_idle_is_the_time_in_which_nothing_ran():
    events = [("a", 0, 10), ("b", 5, 20), ("c", 40, 50), ("a", 41, 45)]
    assert clock.busy_ns(events) == 30 and clock.idle_share(events) == pytest.approx(0.4)
    assert clock.total_by_name(events) == [("b", 15, 1), ("a", 14, 2), ("c", 10, 1)]
    assert clock.idle_share([]) == 0.0


class SeenEvents:
    """A profiler that has seen events: (name, start, duration) in ns."""

    def __init__(self, events):
        self.profiler = self.kineto_results = self
        self._events = events

    def events(self):
        def made(name, start, duration):
            return SimpleNamespace(name=lambda: name, start_ns=lambda: start, duration_ns=lambda: duration)

        return [made(*event) for event in self._events]


def test_waits_copies_and_launches_are_counted_by_the_step():
    calls = ["cudaStreamSynchronize"] * 4 + ["cudaMemcpyAsync"] * 6 + ["cudaLaunchKernel"] * 20 + ["cuLaunchKernelEx"] * 2
    outside = [("cudaDeviceSynchronize", 50, 9), ("cudaDeviceSynchronize", 210, 9), ("cudaLaunchKernel", 220, 1)]
    seen = SeenEvents([(clock.MEASURED, 100, 100), *((name, 150, 1) for name in [*calls, "aten::mm"]), *outside])
    found = clock.host_calls(seen, calls=2)
    assert found == {"waits": 2, "copies": 3, "launches": 11}, "what ends the measurement is not the program's"


def test_a_profile_of_the_cpu_has_its_operators_and_not_its_annotations():
    def work():
        with torch.profiler.record_function("a note"):
            torch.randn(64, 64) @ torch.randn(64, 64)

    profiler = clock.profiled(work, "cpu", calls=3)
    counts = {name: count for name, _, count in clock.total_by_name(clock.device_events(profiler, "cpu"))}
    assert counts["aten::matmul"] == 3 and "a note" not in counts and clock.MEASURED not in counts
    assert clock.host_calls(profiler, 3) == {"waits": 0, "copies": 0, "launches": 0}


def sharded(monkeypatch, tmp_path, answers):
    """sharding.run on one pretended card; `answers`: of each training by (backend, layout), losses or an error."""
    asked = []

    def train(spec, timeout_s, num_ranks=1, on_cpu=False, environment=None):
        layout = (
            next((o for o in spec.overrides if o.startswith("parallel.") and "optimizer" not in o), "data")
            if num_ranks > 1
            else "one"
        )
        asked.append((spec.backend, layout, spec.card, environment or {}))
        answer = answers.get((spec.backend, layout), [3.0, 2.0])
        if isinstance(answer, str):
            raise TrainingFailed(answer)
        return [{"loss": loss} for loss in answer]

    monkeypatch.setattr(sharding, "train_in_processes", train)
    (tmp_path / "data").mkdir()
    context = Context(
        "sharding", Settings(False, tmp_path, {"cards": [{"name": "NVIDIA H100"}]}, nccl_library=tmp_path / "libnccl.so"), 40
    )
    return sharding.run(context), context, asked


def test_on_one_card_what_nccl_refuses_is_tried_with_gloo(monkeypatch, tmp_path):
    refusal, no_send = "rank 0: Duplicate GPU detected", "rank 1: gloo has no send for CUDA"
    answers = {("nccl", layout): refusal for layout in ("parallel.tensor=2", "parallel.pipeline=2", "data")}
    text, context, asked = sharded(monkeypatch, tmp_path, answers | {("gloo", "parallel.pipeline=2"): no_send})
    assert f"TP2 NCCL: {refusal}; gloo 0.0e+00" in text and f"PP2 NCCL: {refusal}; gloo: {no_send}" in text
    assert not context.failures, "a refusal is an answer, not a fault of the project"
    shared = [environment for backend, layout, card, environment in asked if backend == "nccl" and layout != "one"]
    assert all(e["NCCL_MULTI_RANK_GPU_ENABLE"] == "1" and e["LD_PRELOAD"].endswith("libnccl.so") for e in shared)
    assert [card for backend, layout, card, _ in asked if layout != "one"] == [0] * 6


def test_losses_that_differ_between_layouts_fail_the_stage(monkeypatch, tmp_path):
    text, context, _ = sharded(monkeypatch, tmp_path, {("nccl", "parallel.tensor=2"): [3.0, 2.001]})
    assert context.failures == ["TP2"] and "TP2 5.0e-04" in text and "DP2 0.0e+00" in text


def test_the_size_that_matters_most_is_measured_first_and_every_size_once():
    found = cases("roberta-base", (32, 64, 16, 8))
    assert found[0] == Case("roberta-base", 32) and Case("roberta-base", 32, "fp16") in found
    assert [case.rows for case in found if case.precision == "bf16" and not case.switches] == [32, 64, 16, 8]
    assert len(set(found)) == len(found)


def test_losses_are_compared_step_by_step():
    assert differences([2.0, 1.1], [2.0, 1.0]) == [0.0, pytest.approx(0.1)]
    with pytest.raises(ValueError, match="1 losses beside 2"):
        differences([1.0], [1.0, 2.0])


def test_the_length_of_the_run_follows_from_the_speed():
    assert steps_within(seconds=100, tokens_per_s=500_000, tokens_a_step=256 * 512) == 324
    assert steps_within(seconds=1, tokens_per_s=500_000, tokens_a_step=256 * 512) == 0


def test_the_verdict_of_prove_resume_is_read():
    text = "\nverdict\n  equal    stopped and resumed: from step 10\n  DIFFERS  killed: loss of step 11 is 2, undisturbed 1\n"
    assert verdicts(text) == (["stopped and resumed: from step 10"], ["killed: loss of step 11 is 2, undisturbed 1"])


def test_the_profile_is_that_of_the_card():
    assert profile_of({"cards": [{"name": "NVIDIA A100-SXM4-40GB"}]}) == "a100"
    assert profile_of({"cards": [{"name": "NVIDIA H100 80GB HBM3"}]}) == "h100"
    assert profile_of({"cards": [{"name": "some other card"}]}) == "h100"
    assert profile_of({"cards": []}) == "cpu_2_cores"


def test_a_peer_gets_the_same_batch():
    tokens = torch.tensor([[0, 4, 7, 2], [0, 9, 2, 1]])
    batch = Batch(tokens, tokens != 1, torch.tensor([1, 5]), torch.tensor([50, 60]), 7)
    found = peer_batch(batch)
    assert found["labels"].tolist() == [[-100, 50, -100, -100], [-100, 60, -100, -100]]
    assert found["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]] and found["input_ids"] is tokens


def test_the_attention_reference_is_torchs_attention_of_each_segment():
    lengths = [3, 5]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(8, 2, 4, generator=generator) for _ in range(3))
    parts = zip(*(tensor.transpose(0, 1).split(lengths, dim=1) for tensor in (q, k, v)))
    expected = torch.cat([torch.nn.functional.scaled_dot_product_attention(*part).transpose(0, 1) for part in parts])
    assert torch.allclose(segment_attention(q, k, v, lengths), expected, atol=1e-6)


def test_a_wrong_attention_is_told_from_the_reference():
    def across_segments(q, k, v, lengths):
        return segment_attention(q, k, v, [sum(lengths)])

    assert max(compare(segment_attention, torch.float32, "cpu", [4, 6], 2, 8).values()) == 0
    assert min(compare(across_segments, torch.float32, "cpu", [4, 6], 2, 8).values()) > 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rehearsal_runs_every_stage(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--minutes",
        "9.5",
        "--output",
        str(tmp_path / "out"),
        "--work",
        str(tmp_path / "work"),
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--rehearse"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "out" / "log.txt").read_text()[-5000:]
    assert done.stdout.splitlines()[0].startswith("rehearsal on CPU, no figures")
    assert f"{len(STAGES)} ok" in done.stdout.splitlines()[-1]
    found = {}
    for group in GROUPS:
        found |= json.loads((tmp_path / "out" / f"{group}.json").read_text())
    assert {stage.name for stage in STAGES} <= set(found)
    assert all(found[stage.name]["result"] == "ok" for stage in STAGES)
    assert len(list((tmp_path / "out").iterdir())) <= 8
    record = (tmp_path / "out" / "record.md").read_text()
    assert record.startswith("# Rehearsal on CPU: no figures") and "--rehearse" in record and "full.yaml:" in record
