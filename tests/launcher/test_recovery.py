"""What follows a failure: on which nodes the run goes on, and when it ends."""

import pytest

from launcher.failure import Failure
from launcher.nodes import NodePool, TooFewNodes
from launcher.recovery import GiveUp, Recovery, Restart
from robustbert.config import load_config
from tests.launcher.conftest import CONFIG


@pytest.fixture
def make_pool(tmp_path):
    def make(names=("n1", "n2", "n3"), unfit=(), **keys):
        (tmp_path / "text.txt").write_text("text")
        (tmp_path / "small.yaml").write_text(CONFIG)
        keys = {"cluster.nodes": 2, "cluster.processes_per_node": 1, "cluster.scheduler": "mpi", "fault_tolerance.max_restarts": 2} | keys
        config = load_config(tmp_path / "small.yaml", [f"{key}={value}" for key, value in keys.items()])
        pool = NodePool(config, list(names), lambda node: "its disk is full" if node in unfit else None, lambda *_: None)
        return pool, Recovery(config.fault_tolerance, pool, None)

    return make


def test_the_first_healthy_nodes_are_taken(make_pool):
    pool, _ = make_pool()
    assert pool.choose() == ["n1", "n2"]
    pool, _ = make_pool(unfit=("n1",))
    assert pool.choose() == ["n2", "n3"]


def test_a_node_that_fails_twice_is_left_out(make_pool):
    pool, recovery = make_pool()
    recovery.decide(Failure("ended by signal 9", 1, "n2", "signal"), 10)
    assert pool.choose() == ["n1", "n2"]
    recovery.decide(Failure("ended by signal 9", 1, "n2.cluster.org", "signal"), 20)
    assert pool.choose() == ["n1", "n3"] and "failed 2 times" in pool.left_out["n2"]


def test_a_node_that_computes_wrongly_is_left_out_at_once(make_pool):
    pool, recovery = make_pool()
    recovery.decide(Failure("the weights differ", 0, "n1", "corruption"), 10)
    assert pool.choose() == ["n2", "n3"]


def test_fewer_nodes_only_where_allowed_and_where_the_layout_divides(make_pool):
    names = ("n1", "n2", "n3")
    pool, _ = make_pool(names, unfit=("n2", "n3"))
    with pytest.raises(TooFewNodes, match="1 of 3 nodes are left and the run needs 2.*n2: its disk is full"):
        pool.choose()
    pool, _ = make_pool(names, unfit=("n2", "n3"), **{"fault_tolerance.min_nodes": 1})
    assert pool.choose() == ["n1"]
    # Three of four: a batch of 8 does not divide by 3, so two work and one waits.
    sizes = {"cluster.nodes": 4, "train.global_batch_size": 8, "fault_tolerance.min_nodes": 1}
    pool, _ = make_pool((*names, "n4"), unfit=("n2",), **sizes)
    assert pool.choose() == ["n1", "n3"]


def test_pauses_grow_and_end(make_pool):
    _, recovery = make_pool(**{"fault_tolerance.max_restarts": 3})
    lost = Failure("ended by signal 9 (Killed)", 1, "n2", "signal")
    assert [recovery.decide(lost, None) for _ in range(3)] == [Restart(1, 1), Restart(2, 2), Restart(3, 4)]
    assert "3 restarts in a row without any checkpoint" in recovery.decide(lost, None).reason


def test_a_new_checkpoint_is_progress(make_pool):
    _, recovery = make_pool()
    lost = Failure("ended by signal 9 (Killed)", 1, None, "signal")
    assert [recovery.decide(lost, step).number for step in (None, 10, 20, 20)] == [1, 1, 1, 2]


def test_a_bug_ends_the_run_the_second_time_and_a_lost_connection_does_not(make_pool):
    _, recovery = make_pool()
    bug = Failure("RuntimeError: division broke", 1, None, "error", "Traceback ...", step=7)
    assert isinstance(recovery.decide(bug, 5), Restart)
    assert "the same error at step 7 twice" in recovery.decide(bug, 5).reason
    _, recovery = make_pool()
    cut = Failure("RuntimeError: Connection closed by peer", 1, None, "error", "Traceback ...", step=7)
    assert isinstance(recovery.decide(cut, 5), Restart) and isinstance(recovery.decide(cut, 5), Restart)
    _, recovery = make_pool()
    segfault = Failure("ended by signal 11 (Segmentation fault)", 1, None, "signal", step=7)
    recovery.decide(segfault, 5)
    assert isinstance(recovery.decide(segfault, 5), GiveUp)


def test_what_the_user_must_mend_is_not_tried_again(make_pool):
    _, recovery = make_pool()
    assert recovery.decide(Failure("the corpus is empty", 0, None, "user"), None) == GiveUp("the corpus is empty")
