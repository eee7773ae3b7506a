"""Nodes that die or are cut off: the run goes on on the spare one, and without a spare on fewer."""

import time

import pytest

from tests.faults.hosts import Hosts, why_not_here

pytestmark = [pytest.mark.faults, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(280)]
SLOW_S = 0.1


@pytest.fixture
def hosts(tmp_path):
    if reason := why_not_here():
        pytest.skip(reason)
    hosts = Hosts(["head", "n1", "n2", "n3"], tmp_path)
    yield hosts
    hosts.close()


def test_a_killed_and_a_cut_off_node_are_replaced_and_then_done_without(lab, hosts):
    cluster = [
        *("cluster.scheduler=mpi", "cluster.nodes=2", "cluster.processes_per_node=1", "cluster.hosts=[n1,n2,n3]"),
        f"cluster.remote_shell={hosts.shell}",
        *("fault_tolerance.min_nodes=1", "fault_tolerance.silence_timeout_s=20"),
        *("train.steps=120", "checkpoint.interval=10", "optim.lr=1e-3"),
    ]
    run = lab.submit("nodes", {"slow_s": SLOW_S}, *cluster, on=hosts.on("head"))
    run.wait_for("checkpoint_saved")
    hosts.kill("n2")
    run.wait_for("restarted")
    saved = len(run.events("checkpoint_saved"))
    wait_until(run, lambda: len(run.events("checkpoint_saved")) > saved)
    assert run.events("started")[-1]["num_processes"] == 2, "the spare node takes its place"
    hosts.cut_off("n3")
    assert run.finish(200) == 0, run.story()
    lost = run.events("rank_lost")
    assert [event["host"] for event in lost] == ["n2", "n3"], lost
    assert [event["num_processes"] for event in run.events("started")] == [2, 2, 1], "half the data-parallel size at last"
    left_out = {event["node"]: event["reason"] for event in run.events("node_left_out")}
    assert set(left_out) == {"n2", "n3"} and "No route to host" in left_out["n2"]
    whole = lab.submit("nodes-undisturbed", None, "train.steps=120", "checkpoint.interval=10", "optim.lr=1e-3")
    assert whole.finish() == 0, whole.story()
    losses = [{line["step"]: line["loss"] for line in r.run.metrics()} for r in (run, whole)]
    assert losses[0].keys() == losses[1].keys() == set(range(1, 121))
    for step, loss in losses[0].items():
        assert loss == pytest.approx(losses[1][step], rel=1e-4), step


def wait_until(run, condition, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, run.story()
        time.sleep(0.1)
