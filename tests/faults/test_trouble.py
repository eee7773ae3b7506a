"""Training that goes wrong is rolled back and goes on with other data; what a restart does not cure ends the run at once."""

import json
import math

import pytest

from robustbert.checkpoint.manifest import committed_checkpoints, verify

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(("action", "step", "back_to"), [("nan", 7, 6), ("nan", 1, 0), ("spike", 22, 20)])
def test_bad_step_is_rolled_back_and_its_data_left_out(action, step, back_to, lab):
    fault = {"rank": 1, "action": action, "point": "after backward", "count": step}
    run = lab.submit(f"{action}-{step}", fault, "train.steps=24", "fault_tolerance.spike_window=16")
    assert run.finish() == 0, run.story()
    (back,) = run.events("rolled_back")
    assert (back["step"], back["to_step"]) == (step, back_to)
    assert back["skipped_data_steps"] == [back_to, step - 1]
    assert ("nan" in back["reason"]) == (action == "nan") and ("times the median" in back["reason"]) == (action == "spike")
    losses = [line["loss"] for line in run.run.metrics()]
    assert math.isfinite(losses[-1]) and run.events("finished")[0]["step"] == 24
    assert f"step {step} went wrong" in run.output and "left out (rollback 1 of 5)" in run.output
    assert not run.events("rank_lost"), "rolling back needs no restart"


def test_a_restart_after_a_rollback_leaves_the_same_data_out(lab):
    fault = {"rank": 0, "action": "nan", "point": "after backward", "count": 7}
    whole = lab.submit("rollback-whole", fault)
    assert whole.finish() == 0, whole.story()
    # Stopped right after the rollback, before any checkpoint of what came after it.
    stopped = lab.submit("rollback-stopped", fault)
    stopped.wait_for("rolled_back")
    stopped.process.send_signal(15)
    stopped.finish()
    resumed = lab.resume(stopped.run)
    assert resumed.finish() == 0, resumed.story()
    assert resumed.final_weights() == whole.final_weights()


def test_rollbacks_have_a_limit_and_then_the_way_out(lab):
    run = lab.submit("limit", None, "optim.lr=1e30", "optim.warmup_steps=1", "fault_tolerance.max_rollbacks=2")
    assert run.finish() == 1
    assert len(run.events("rolled_back")) == 2
    (failed,) = run.events("failed")
    assert "after 2 rollbacks" in failed["reason"] and "optim.lr" in failed["reason"]
    assert not run.events("restarted")


def test_a_flipped_bit_is_found_and_its_rank_named(lab, undisturbed):
    # Of three replicas: the majority tells which one is wrong.
    fault = {"rank": 2, "action": "flip", "point": "after update", "count": 5}
    size = ("cluster.processes_per_node=3", "train.global_batch_size=6", "parallel.distributed_optimizer=false")
    run = lab.submit("flip", fault, *size, "fault_tolerance.replica_check_interval=1")
    assert run.finish() == 0, run.story()
    (differ,) = run.events("replicas_differ")
    assert differ["ranks"] == [2] and differ["step"] == 5
    (lost,) = run.events("rank_lost")
    assert lost["rank"] == 2 and lost["kind"] == "corruption"
    assert run.events("finished") and verify(committed_checkpoints(run.run.checkpoints)[-1]).state["step"] == 12


def test_an_error_of_one_rank_ends_all_within_seconds_with_its_traceback_on_top(lab, undisturbed):
    run = lab.submit("error", {"rank": 1, "action": "memory", "point": "after backward", "count": 5})
    assert run.finish() == 0, run.story()
    (lost,) = run.events("rank_lost")
    assert lost["rank"] == 1 and "MemoryError" in lost["reason"] and "after_backward" not in lost["traceback"]
    assert lost["kind"] == "oom" and lost["step"] == 4
    broke_at = json.loads((run.run.path / "fault_done").read_text())["time"]
    assert lost["time"] - broke_at < 5
    assert run.output.index("--- rank 1 ---") < run.output.index("rank 1 failed")
    assert run.final_weights() == undisturbed.final_weights()


def test_the_same_error_at_the_same_step_ends_the_run_at_the_second_time(lab):
    fault = {"rank": 1, "action": "raise", "point": "after backward", "count": 1, "always": True}
    run = lab.submit("bug", fault)
    assert run.finish() == 1
    assert [lost["kind"] for lost in run.events("rank_lost")] == ["error", "error"] and len(run.events("restarted")) == 1
    assert "the same error at step 0 twice, a restart does not cure it" in run.events("failed")[0]["reason"]
