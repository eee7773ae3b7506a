"""Runs on a real Slurm cluster, several nodes on this machine."""

import time

import pytest

from tests.cluster.conftest import launcher

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]
TWO_NODES = ("cluster.scheduler=slurm", "cluster.nodes=2", "cluster.processes_per_node=1")


def wait_until(run, condition, timeout_s=90):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, run.story()
        time.sleep(0.2)
    return value


def test_a_job_of_two_nodes_runs_to_its_end(cluster, lab):
    run = lab.submit("two nodes; touch x", None, *TWO_NODES, "cluster.gpus_per_node=1", 'cluster.time_limit="10"')
    assert run.finish() == 0, run.story()
    assert "is in the queue as job" in run.output
    run.wait_for("finished")
    assert run.events("started")[0]["num_processes"] == 2
    assert not (lab.folder / "x").exists()
    shown = launcher(lab, "status", "two nodes; touch x").stdout
    assert "finished" in shown and "12/12" in shown


def test_a_cancelled_job_saves_and_stops(cluster, lab):
    run = lab.submit("cancelled", {"slow_s": 0.2}, *TWO_NODES, "train.steps=500")
    run.finish()
    run.wait_for("checkpoint_saved")
    assert "running" in launcher(lab, "status", "cancelled").stdout
    cancelled = launcher(lab, "cancel", "cancelled")
    assert cancelled.returncode == 0 and "stopped at step" in cancelled.stdout, cancelled
    stopped = run.events("preempted")[0]["step"]
    assert run.events("checkpoint_saved")[-1]["step"] == stopped
    time.sleep(2)
    assert "cancelled" not in cluster.run("squeue", "-h", "-o", "%j"), "what the user stops does not go back to the queue"


def test_a_job_that_waits_is_shown_and_taken_out(cluster, lab):
    run = lab.submit("waiting", None, *TWO_NODES, 'cluster.sbatch_options=["--begin=now+1hour"]')
    assert run.finish() == 0
    assert "queued" in launcher(lab, "status", "waiting").stdout and "PENDING" in launcher(lab, "status", "waiting").stdout
    again = launcher(lab, "resume", "waiting")
    assert again.returncode == 2 and "queued" in again.stderr
    refused = launcher(lab, "signal", "waiting")
    assert refused.returncode == 2 and "is not running: PENDING (BeginTime)" in refused.stderr, refused
    launcher(lab, "cancel", "waiting")
    assert "waiting" not in cluster.run("squeue", "-h", "-o", "%j")


@pytest.mark.timeout(290)
def test_a_notice_before_the_time_limit_saves_requeues_and_resumes(cluster, lab):
    run = lab.submit("preempted", {"slow_s": 0.2}, *TWO_NODES, "train.steps=60")
    run.finish()
    run.wait_for("checkpoint_saved")
    job = run.events("queued")[0]["job"]
    sent = launcher(lab, "signal", "preempted")
    assert sent.returncode == 0 and f"SIGUSR1 sent to the supervisor of job {job}" in sent.stdout, sent
    stopped = run.wait_for("preempted")
    wait_until(run, lambda: "PENDING" in cluster.run("scontrol", "show", "job", job))
    assert "queued" in launcher(lab, "status", "preempted").stdout

    # Slurm holds a requeued job back for two minutes, so that its nodes are clear of the first life: a node on which that
    # still runs refuses the second one, and the job has failed. Here some seconds are enough.
    time.sleep(10)
    deadline = time.monotonic() + 150
    while len(run.events("preparing")) < 2:
        shown = cluster.run("scontrol", "show", "job", job)
        assert time.monotonic() < deadline, f"{shown}\n{cluster.run('sinfo')}\n{run.story()}"
        if "Reason=BeginTime" in shown:
            cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        time.sleep(1)
    run.wait_for("finished", timeout_s=60)
    assert [event["step"] for event in run.events("started")] == [0, stopped["step"]]
    steps = [line["step"] for line in run.run.metrics()]
    assert steps == list(range(1, 61)), "nothing was computed twice"


def test_a_lost_node_is_replaced_by_the_spare_one_of_the_allocation(cluster, lab):
    run = lab.submit("lost", {"slow_s": 0.2}, *TWO_NODES, "cluster.spare_nodes=1", "train.steps=60")
    run.finish()
    run.wait_for("checkpoint_saved")
    cluster.kill_node("node2")
    run.wait_for("finished", timeout_s=150)
    assert len(run.events("started")) == 2 and run.events("started")[1]["step"] > 0
    assert [event["host"] for event in run.events("rank_lost")] == ["node2"]
    assert "node2" in {event["node"] for event in run.events("node_left_out")}
    cluster.start_node("node2")


def test_what_slurm_refuses_is_one_line_and_leaves_nothing(cluster, lab):
    run = lab.submit("refused", None, *TWO_NODES, "cluster.partition=nowhere")
    assert run.finish() == 2
    assert run.output.startswith("run refused in") and "Slurm's sbatch refuses" in run.output and "invalid partition" in run.output
    assert not run.run.path.exists()
