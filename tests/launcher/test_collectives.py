"""Who holds a job up, from torch's flight recorder: real processes under gloo, and records as NCCL leaves them."""

import json
import sys
import threading
import time

import pytest
import torch
import torch.distributed as dist

from launcher.attempt import describe_group
from launcher.collectives import GroupRecord, own_collectives, read_entries
from launcher.hang import find_culprits
from launcher.heartbeats import Heartbeats, RankPulse
from launcher.pulse import ADDRESS_VARIABLE, TOKEN_VARIABLE, Pulse, own_stacks
from launcher.waits import find_waits, group_name
from robustbert.device import Device
from robustbert.progress import Progress
from robustbert.testing.ranks import run_on_ranks

MAIN = 0x7F12
READS_ITS_DEVICE = """Thread 0x0000000000007f12 (most recent call first):
  File "/x/robustbert/train/pretrain.py", line 100 in train_step
"""
IN_COLLECTIVE = """Thread 0x0000000000007f12 (most recent call first):
  File "/x/torch/distributed/distributed_c10d.py", line 2810 in all_reduce
"""


def culprits(collectives: dict[int, list[GroupRecord]], stacks: dict[int, str] | None = None, **marks):
    """find_culprits for ranks that are all alive, in the same step. marks: phase and count by rank."""
    ranks = sorted(collectives)
    pulses = {rank: RankPulse(rank, "n0", rank, 0.0, 0.0, step=5, **{k: v[rank] for k, v in marks.items()}) for rank in ranks}
    answers = {
        rank: {"stacks": (stacks or {}).get(rank, READS_ITS_DEVICE), "main_thread": MAIN, "collectives": [vars(r) for r in collectives[rank]]}
        for rank in ranks
    }
    return find_culprits(pulses, json.loads(json.dumps(answers), object_hook=_ranks_as_numbers), len(ranks), 0.0, 3)


def _ranks_as_numbers(tree: dict) -> dict:
    return {int(key) if key.isdigit() else key: value for key, value in tree.items()}


def hang_like_a_gpu(job, looping_rank: int):
    """Four ranks, tensor 2 x data 2; one does not come, the others wait as the host of a GPU does: not in a collective's frame."""
    device = Device.detect(job)
    with device.joined(job, 60):
        groups = {name: [(ranks, dist.new_group(ranks, group_desc=name)) for ranks in all_ranks] for name, all_ranks in (
            ("TENSOR_MODEL_PARALLEL_GROUP", ([0, 1], [2, 3])), ("DATA_PARALLEL_GROUP", ([0, 2], [1, 3]))
        )}
        mine = [next(group for ranks, group in pairs if job.rank in ranks) for pairs in groups.values()]
        values = torch.ones(8)
        for _ in range(3):
            dist.all_reduce(values, group=mine[0])
            dist.all_reduce(values, group=mine[1])
        before = time.monotonic()
        evidence = None
        for group in mine:  # tensor-parallel, then data-parallel
            if job.rank == looping_rank:
                while time.monotonic() < before + 3:
                    time.sleep(0.05)
                    evidence = evidence or (time.monotonic() > before + 1.5 and look())
            work = dist.all_reduce(values, group=group, async_op=True)
            while not work.is_completed():
                time.sleep(0.05)
                evidence = evidence or (time.monotonic() > before + 1.5 and look())
        return evidence


def look():
    return {"stacks": own_stacks(), "main_thread": threading.main_thread().ident, "collectives": own_collectives()}


@pytest.mark.parametrize("looping_rank", [0, 3])
def test_of_real_processes_the_one_that_loops_is_named(looping_rank):
    answers = dict(enumerate(run_on_ranks(hang_like_a_gpu, 4, looping_rank)))
    pulses = {rank: RankPulse(rank, "n0", rank, 0.0, 0.0, step=5) for rank in answers}
    found = find_culprits(pulses, answers, 4, 0.0, quiet_s=3)
    assert found.ranks == [looping_rank]
    of_group = {"tensor-parallel": looping_rank ^ 1, "data-parallel": looping_rank ^ 2}  # both neighbours wait for it
    assert found.why in [f"did not start all_reduce number 4 of the {name} group, where rank {other} waits" for name, other in of_group.items()]
    without = {rank: answer | {"collectives": None} for rank, answer in answers.items()}
    assert len(find_culprits(pulses, without, 4, 0.0, quiet_s=3).ranks) == 4, "the stacks alone do not tell"


def test_real_groups_are_described_with_their_members():
    ((first, *_), _) = run_on_ranks(groups_of_rank, 2)
    assert first == "tensor-parallel group [0, 1]: broadcast 2 is the newest"


def groups_of_rank(job):
    with Device.detect(job).joined(job, 60):
        group = dist.new_group([0, 1], group_desc="TENSOR_MODEL_PARALLEL_GROUP")
        for _ in range(2):
            dist.broadcast(torch.ones(2), 0, group=group)
        while any(record["waiting"] for record in own_collectives()):  # gloo notes the end a moment later
            time.sleep(0.05)
        return [text for text in map(describe_group, own_collectives()) if "tensor" in text]


# Entries as torch/csrc/distributed/c10d/FlightRecorderDetail.hpp writes them for NCCL, without sizes and threads.
def entry(number, operation="all_reduce", group=("3", "TENSOR_MODEL_PARALLEL_GROUP"), state="completed", p2p=0, **others):
    is_over = state == "completed"
    return {
        "record_id": number,
        "pg_id": 3,
        "process_group": list(group),
        "collective_seq_id": 0 if p2p else number,
        "p2p_seq_id": p2p,
        "is_p2p": bool(p2p),
        "profiling_name": f"nccl:{operation}",
        "state": state,
        "retired": is_over,
        "time_discovered_started_ns": 0,
        "time_discovered_completed_ns": 5 if is_over else 0,
    } | others


TENSOR = {"3": ("TENSOR_MODEL_PARALLEL_GROUP", [0, 1])}
PIPELINE = {"7": ("PIPELINE_MODEL_PARALLEL_GROUP", [1, 5])}


def test_nccls_entries_by_group():
    (record,) = read_entries([entry(7), entry(8), entry(9, "_allgather_base", state="scheduled")], TENSOR)
    assert record == GroupRecord("3", "TENSOR_MODEL_PARALLEL_GROUP", [0, 1], 9, "_allgather_base", 9, "_allgather_base", None, [])
    (empty,) = read_entries([], TENSOR)
    assert empty == GroupRecord("3", "TENSOR_MODEL_PARALLEL_GROUP", [0, 1])


def test_what_a_cuda_graph_captured_is_not_waited_for():
    (record,) = read_entries([entry(1, state="scheduled"), entry(2)], TENSOR)
    assert record.waiting is None and record.enqueued == 2


def test_transfers_of_a_batch_are_over_with_it():
    names = ("send 0->1", "recv 0<-1", "coalesced")
    batch = [entry(n, name, ("7", PIPELINE["7"][0]), "scheduled", p2p=4) for n, name in enumerate(names)]
    (record,) = read_entries(batch, PIPELINE)
    assert record.transfers == [(True, 5), (False, 5)] and record.waiting is None
    batch[-1] |= {"retired": True, "state": "completed"}
    (record,) = read_entries(batch, PIPELINE)
    assert record.transfers == []


def tensor_group(enqueued, waiting=None, started=None, group="3", ranks=(0, 1), description="TENSOR_MODEL_PARALLEL_GROUP", transfers=()):
    operation = "all_reduce" if waiting else ""
    return GroupRecord(group, description, list(ranks), enqueued, "all_reduce", waiting, operation, started, list(transfers))


def test_a_chain_of_waits_is_followed_to_its_end():
    # 0 waits for 1 in their data-parallel group, 1 waits for 2 in their tensor-parallel one.
    data = {"group": "5", "description": "DATA_PARALLEL_GROUP_WITH_CP"}
    found = culprits({
        0: [tensor_group(4, 4, ranks=(0, 1), **data)],
        1: [tensor_group(3, ranks=(0, 1), **data), tensor_group(9, 9, ranks=(1, 2))],
        2: [tensor_group(8, ranks=(1, 2))],
    })
    assert found.ranks == [2] and found.why == "did not start all_reduce number 9 of the tensor-parallel group, where rank 1 waits"


def test_several_who_are_missed_are_named_with_what_each_did_not_do():
    found = culprits({
        0: [tensor_group(9, 9)], 1: [tensor_group(8)],
        2: [tensor_group(6, 6, group="4", ranks=(2, 3))], 3: [tensor_group(5, group="4", ranks=(2, 3))],
    })
    assert found.ranks == [1, 3]
    assert "rank 1 did not start all_reduce number 9" in found.why and "rank 3 did not start all_reduce number 6" in found.why


def test_whose_record_does_not_reach_back_is_not_there_either():
    assert culprits({0: [tensor_group(9, 9)], 1: [tensor_group(None)]}).ranks == [1]


def test_where_all_have_queued_it_the_gpu_that_did_not_begin_is_named():
    found = culprits({0: [tensor_group(9, 9, started=9)], 1: [tensor_group(9, 9, started=8)]})
    assert found.ranks == [1] and "its GPU did not begin it" in found.why
    untimed = {0: [tensor_group(9, 9)], 1: [tensor_group(9, 9)]}
    assert culprits(untimed).ranks == [0, 1], "torch times no collectives: nothing is known of their beginning"


def test_a_stage_that_does_not_take_what_is_sent():
    ranks = {"ranks": (0, 4), "description": "PIPELINE_MODEL_PARALLEL_GROUP"}
    sender = tensor_group(2, transfers=[(True, 4)], **ranks)
    found = culprits({0: [sender], 4: [tensor_group(2, **ranks)]} | {r: [] for r in (1, 2, 3)})
    assert found.ranks == [4] and found.why.startswith("did not receive from rank 0 in the pipeline-parallel group, where rank 0 waits")
    both_there = {0: [sender], 4: [tensor_group(2, transfers=[(False, 0)], **ranks)]}
    assert find_waits(both_there) == []


def test_who_waits_in_a_transfer_that_is_not_recorded_holds_nobody_up():
    # gloo's transfers are not in the recorder: rank 1 receives from rank 2, which loops.
    records = {0: [tensor_group(4, 4)], 1: [tensor_group(3)], 2: []}
    found = culprits(records, {0: IN_COLLECTIVE, 1: IN_COLLECTIVE})
    assert found.ranks == [2] and "did not arrive" in found.why


def test_a_circle_is_told_as_one():
    found = culprits({
        0: [tensor_group(4, 4), tensor_group(1, group="6", description="default_pg")],
        1: [tensor_group(3), tensor_group(2, 2, group="6", description="default_pg")],
    })
    assert found.ranks == [0, 1] and found.why.startswith("wait for each other: ")
    assert "rank 1 did not start all_reduce number 4 of the tensor-parallel group, where rank 0 waits" in found.why
    assert "rank 0 did not start all_reduce number 2 of the group of all ranks, where rank 1 waits" in found.why


def test_without_collectives_the_phase_tells():
    marks = {"phase": ["counting", "forward and backward", "counting"], "count": [9, 7, 9]}
    found = culprits({0: [], 1: [], 2: []}, **marks)
    assert found.ranks == [1] and found.why == "is still at 'forward and backward', others are at 'counting'"
    found = culprits({0: [], 1: [], 2: []}, {1: IN_COLLECTIVE, 2: IN_COLLECTIVE}, **marks)
    assert found.ranks == [0], "who waits in a collective is not at fault, however early"


@pytest.mark.parametrize(
    ("description", "name"),
    [
        ("TENSOR_MODEL_PARALLEL_GROUP", "tensor-parallel group"),
        ("DATA_PARALLEL_GROUP_WITH_CP", "data-parallel group"),
        ("MODEL_PARALLEL_GROUP", "model-parallel group"),
        ("TENSOR_AND_DATA_PARALLEL_GROUP", "tensor and data-parallel group"),
        ("EMBEDDING_GROUP", "embedding group"),
        ("default_pg", "group of all ranks"),
        ("undefined", "group 3"),
    ],
)
def test_groups_have_names(description, name):
    assert group_name(GroupRecord("3", description, [])) == name


def test_a_recorder_that_hangs_or_fails_costs_no_more_than_its_time():
    def fail():
        raise AttributeError("another torch")

    asked_at = time.monotonic()
    assert own_collectives(0.2, dump=lambda: time.sleep(60)) is None
    assert own_collectives(0.2, dump=fail) is None
    assert time.monotonic() - asked_at < 5


def test_both_recorders_are_read(monkeypatch):
    class TorchWithNccl:
        _dump_nccl_trace_json = staticmethod(lambda: json.dumps({
            "entries": [entry(7), entry(8, state="started", time_discovered_started_ns=3)],
            "pg_config": {"3": {"name": "3", "desc": "TENSOR_MODEL_PARALLEL_GROUP", "ranks": "[0, 1]"}},
        }).encode())
        _dump_fr_trace_json = staticmethod(lambda: b'{"entries": [], "pg_config": {"": {"desc": "", "name": "", "ranks": "[]"}}}')

    monkeypatch.setitem(sys.modules, "torch._C._distributed_c10d", TorchWithNccl)
    (record,) = own_collectives()
    assert (record["ranks"], record["enqueued"], record["waiting"], record["started"]) == ([0, 1], 8, 8, 8)
    monkeypatch.delitem(sys.modules, "torch._C._distributed_c10d")
    assert own_collectives() == []


def test_collectives_come_with_the_stacks_and_a_hanging_recorder_does_not_stop_the_beats(monkeypatch):
    slow = threading.Event()
    monkeypatch.setattr("launcher.pulse.own_collectives", lambda: slow.wait(30) and [{"group": "0"}])
    with Heartbeats("secret") as heartbeats:
        pulse = Pulse(0, Progress(), {ADDRESS_VARIABLE: f"127.0.0.1:{heartbeats.port}", TOKEN_VARIABLE: "secret"}, on_lost=print)
        pulse.start()
        while 0 not in heartbeats.pulses():
            time.sleep(0.02)
        asked_at = time.monotonic()
        answers = heartbeats.collect_stacks(1.5)
        assert "stacks" in answers[0] and "collectives" not in answers[0]
        assert heartbeats.pulses()[0].heard_at > asked_at, "it beats on"
        slow.set()
        answers = heartbeats.collect_stacks(5)
        assert answers[0]["collectives"] == [{"group": "0"}]
        pulse.say_goodbye()
