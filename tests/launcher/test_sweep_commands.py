"""What a sweep starts, where, and with which cores and GPUs: pure functions."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.schedulers import slurm
from launcher.sweep.array import array_job
from launcher.sweep.folder import make_sweep
from launcher.sweep.member import member_environment
from launcher.sweep.pool import Slot, make_slots, member_command
from launcher.sweep.progress import Count
from robustbert.config import ClusterConfig

MEMBERS = [{"name": f"task/m{number}", "command": ["echo", "a b; touch x"]} for number in range(4)]


@pytest.fixture
def sweep():
    return make_sweep(Path("/data/a b; touch y"), "t", Path("/home/me"), MEMBERS)


def test_a_member_on_a_host_is_one_quoted_command(sweep):
    command = member_command(sweep.path, sweep.members[2], Slot("n1", "0,1"), ClusterConfig(remote_shell="my ssh"), share=4)
    assert command[:2] == ["my ssh", "n1"]
    remote = shlex.split(" ".join(command[2:]))  # as a remote shell puts the words together
    assert remote[-6:] == ["-m", "launcher.sweep.member", "/data/a b; touch y", "2", "--share=4", "--devices=0,1"]
    here = member_command(sweep.path, sweep.members[2], Slot(None), ClusterConfig(), share=1)
    assert here[0] == "env" and here[-3:] == ["/data/a b; touch y", "2", "--share=1"]


def test_an_array_has_the_missing_members_numbers_and_needs_no_shell(sweep):
    cluster = ClusterConfig(partition="gpu", gpus_per_node=1, time_limit="60", sbatch_options=("--mem=8G",))
    missing = [sweep.members[number] for number in (0, 1, 3)]
    command, script = array_job(sweep, missing, cluster, at_once=2)
    assert command[:2] == ["sbatch", "--array=0-1,3%2"] and command[-1] == "/data/a b; touch y/array.sh"
    for option in ("--partition=gpu", "--gpus-per-node=1", "--mem=8G", "--chdir=/home/me", "--output=/data/a b; touch y/logs/slurm-%A_%a.log"):
        assert option in command
    assert not any(word.startswith("--signal") for word in command), "a command that cannot save gets no notice"
    assert "-m launcher.sweep.member '/data/a b; touch y' &" in script
    runs = replace(sweep, members=tuple(replace(member, run=object()) for member in sweep.members))
    assert "--signal=B:USR1@180" in array_job(runs, missing, cluster, at_once=None)[0]


@pytest.mark.parametrize(("numbers", "text"), [([3], "3"), ([0, 1, 2, 5, 7, 8], "0-2,5,7-8"), ([9, 2, 1], "1-2,9")])
def test_numbers_are_written_as_ranges(numbers, text):
    assert slurm.number_ranges(numbers) == text


@pytest.mark.parametrize(
    ("per_host", "gpus", "devices"),
    [(2, None, [None, None]), (2, 8, ["0,1,2,3", "4,5,6,7"]), (3, 8, ["0,1", "2,3", "4,5"]), (4, 2, ["0", "1", "0", "1"])],
)
def test_gpus_are_shared_out_and_hosts_filled_in_turn(per_host, gpus, devices):
    slots = make_slots(["n1", "n2"], per_host, gpus)
    assert [slot.host for slot in slots] == ["n1", "n2"] * per_host
    assert [slot.devices for slot in slots if slot.host == "n2"] == devices


def test_cores_and_gpus_are_those_that_the_user_has_left_to_the_sweep():
    assert member_environment({}, num_cores=16, share=4, devices=None) == {"OMP_NUM_THREADS": "4"}
    assert member_environment({"OMP_NUM_THREADS": "1"}, 16, 4, None) == {"OMP_NUM_THREADS": "1"}
    assert member_environment({"CUDA_VISIBLE_DEVICES": "6,7"}, 2, None, "1") == {"CUDA_VISIBLE_DEVICES": "7"}
    assert member_environment({}, 2, 3, "0,1") == {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0,1"}


def test_the_time_left_is_that_of_the_members_so_far(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    count = Count(num_members=10, num_before=4)
    assert count.in_words() == "4/10 done"
    now[0] += 30
    for is_success in (True, True, False):
        count.add(is_success)
    assert count.in_words() == "6/10 done, 1 failed, about 30 s left"


def test_a_record_tells_how_a_member_ended(tmp_path):
    (member,) = make_sweep(tmp_path, "t", tmp_path, MEMBERS[:1]).members
    assert member.read_done() is None
    member.path.mkdir(parents=True)
    record = {"exit_code": 75, "seconds": 1.0, "started": 1.0, "host": "n", "stopped": "preempted by SIGTERM", "command": ["x"]}
    member.done_file.write_text(json.dumps(record))
    assert member.read_done().in_words() == "stopped (preempted by SIGTERM)" and not member.is_success
    member.done_file.write_text('{"exit_code": 0')  # cut short
    assert member.read_done() is None
