"""Sweeps on this machine: each member once, also when things break; and sweeps of runs."""

import json
import os
import signal
import subprocess
import sys

import pytest

from launcher.cli import main
from launcher.sweep.folder import read_sweep
from robustbert.run_directory import RunDirectory

pytestmark = pytest.mark.timeout(280)


def make(launching, **commands):
    """A sweep with a member for each command of a shell."""
    folder = launching.folder / "sweep"
    folder.mkdir(exist_ok=True)
    members = [{"name": name.replace("__", "/"), "command": ["sh", "-c", text]} for name, text in commands.items()]
    (folder / "sweep.json").write_text(json.dumps({"title": "a sweep", "folder": str(launching.folder), "members": members}))
    return folder


def done(folder, name):
    return json.loads((folder / "members" / name / "done.json").read_text())


def test_members_run_once_and_failed_ones_again(launching):
    folder = make(launching, task__a="echo a >> ran", task__b="echo b >> ran; test -e mended || exit 3", c="echo c >> ran; echo said")
    first = launching.launcher("sweep", "sweep", "--parallel", "2")
    assert first.returncode == 1, first.stderr
    assert "task/b: failed, exit code 3" in first.stdout and "2 of 3 members are done, 1 failed: task/b" in first.stdout
    assert (done(folder, "task/a")["exit_code"], done(folder, "task/b")["exit_code"]) == (0, 3)
    assert (folder / "members/c/log.txt").read_text().endswith("said\n")
    table = launching.launcher("sweep", "sweep", "--status").stdout
    assert "a sweep: 2/3 done" in table and "failed, exit code 3" in table

    (launching.folder / "mended").touch()
    second = launching.launcher("sweep", "sweep")
    assert second.returncode == 0 and "all 3 members are done" in second.stdout
    third = launching.launcher("sweep", "sweep")
    assert third.returncode == 0 and "all 3 members are done" in third.stdout
    assert sorted((launching.folder / "ran").read_text().split()) == ["a", "b", "b", "c"]


def test_ctrl_c_ends_the_members_and_the_sweep_goes_on_later(launching):
    folder = make(launching, quick="echo q >> ran", slow="echo s >> ran; test -e go && exit 0; sleep 60", last="echo l >> ran")
    process = launching.start("sweep", "sweep", "--parallel", "2")
    launching.wait_for(lambda: (launching.folder / "ran").exists() and (launching.folder / "ran").read_text().count("\n") == 3)
    launching.wait_for(lambda: (folder / "members/last/done.json").exists())
    table = launching.launcher("sweep", "sweep", "--status").stdout
    assert "running" in table
    refused = launching.launcher("sweep", "sweep")
    assert refused.returncode == 2 and f"is being run by {os.uname().nodename}, pid {process.pid}" in refused.stderr
    os.kill(process.pid, signal.SIGINT)
    ended = launching.finish(process)
    assert ended.returncode == 130 and "slow: stopped (cancelled by the user)" in ended.stdout, ended
    launching.wait_for(lambda: not launching.processes())
    (launching.folder / "go").touch()
    assert launching.launcher("sweep", "sweep").returncode == 0
    assert sorted((launching.folder / "ran").read_text().split()) == ["l", "q", "s", "s"]


def test_what_a_killed_sweep_left_ends_and_holds_nothing_up(launching):
    make(launching, slow="echo s >> ran; test -e go && exit 0; sleep 60")
    process = launching.start("sweep", "sweep")
    launching.wait_for(lambda: (launching.folder / "ran").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (launching.folder / "go").touch()
    launching.wait_for(lambda: not launching.processes())
    again = launching.launcher("sweep", "sweep")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (launching.folder / "ran").read_text() == "s\ns\n"


def test_a_member_that_runs_elsewhere_is_not_started_twice(launching):
    """Its runner outlives the sweep, as one on another host does."""
    folder = make(launching, only="echo x >> ran; while ! test -e go; do sleep 0.1; done")
    words = [sys.executable, "-m", "launcher.sweep.member", str(folder), "0"]
    runner = subprocess.Popen(words, cwd="/", env=os.environ | {"PYTHONPATH": os.getcwd()}, start_new_session=True)
    try:
        launching.wait_for(lambda: (launching.folder / "ran").exists())
        second = launching.launcher("sweep", "sweep")
        assert second.returncode == 1 and f"runs already on {os.uname().nodename}, pid {runner.pid}" in second.stdout
        (launching.folder / "go").touch()
        assert runner.wait(timeout=20) == 0
    finally:
        runner.kill()
    assert launching.launcher("sweep", "sweep").returncode == 0
    assert (launching.folder / "ran").read_text() == "x\n"


def test_in_the_background_it_is_watched_and_cancelled(launching):
    folder = make(launching, a="sleep 60", b="echo b >> ran")
    started = launching.launcher("sweep", "sweep", "--detach")
    assert started.returncode == 0 and "--status" in started.stdout, started
    launching.wait_for(lambda: "running" in launching.launcher("sweep", "sweep", "--status").stdout)
    assert "told to stop" in launching.launcher("sweep", "sweep", "--cancel").stdout
    launching.wait_for(lambda: not launching.processes())
    assert done(folder, "a")["stopped"] == "cancelled by the user" and not (launching.folder / "ran").exists()
    assert "is not running" in launching.launcher("sweep", "sweep", "--cancel").stdout


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "needs at least one member"),
        ([{"name": "../x", "command": ["true"]}], "becomes a folder"),
        ([{"name": "/etc/x", "command": ["true"]}], "becomes a folder"),
        ([{"name": "a/./b", "command": ["true"]}], "becomes a folder"),
        ([{"name": "a", "command": ["true"]}, {"name": "a", "command": ["true"]}], "two members are called a"),
        ([{"name": "a", "command": ["true"]}, {"name": "a/b", "command": ["true"]}], "would be the folder of the member a/b"),
        ([{"name": "a", "command": "rm -r x"}], "command must be a list of words"),
        ([{"name": "a", "command": ["true"], "comand": 1}], "nothing else"),
    ],
)
def test_a_sweep_that_is_wrong_is_one_line_and_runs_nothing(launching, members, message, monkeypatch, capsys):
    folder = make(launching, a="true")
    (folder / "sweep.json").write_text(json.dumps({"title": "t", "folder": str(launching.folder), "members": members}))
    monkeypatch.chdir(launching.folder)
    assert main(["sweep", "sweep"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "nosuch"], "is no sweep's folder"),
        (["sweep", "."], "holds no sweep.json"),
        (["sweep", "sweep", "optim.lr=1"], "only keys of the section cluster"),
        (["sweep", "sweep", "--over", "optim.lr=[1]"], "--over belongs to a configuration's file"),
        (["sweep", "sweep", "--parallel", "0"], "--parallel must be above 0"),
        (["sweep", "sweep", "--scheduler", "mpi"], "cluster.hosts names 0 hosts"),
        (["sweep", "small.yaml", "--over", "optim.lr=1"], "give the values as a list"),
        (["sweep", "small.yaml", "--over", "optim.lrr=[1]"], "unknown key optim.lrr; did you mean lr?"),
        (["sweep", "small.yaml", "--over", "run.name=[a]"], "is the same for all members"),
        (["sweep", "small.yaml", "--over", "optim.lr=[1.0, 1]"], "two runs would be called small-lr1"),
        (["sweep", "small.yaml", "--over", "cluster.processes_per_node=[1,2]"], "has another section cluster"),
    ],
)
def test_a_command_that_cannot_be_used_is_one_line_and_creates_nothing(launching, words, message, monkeypatch, capsys):
    folder = make(launching, a="true")
    monkeypatch.chdir(launching.folder)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["sweep.json"] and not (launching.folder / "runs").exists()


def test_a_done_member_whose_command_has_changed_is_refused(launching):
    folder = make(launching, a="echo old >> ran")
    assert launching.launcher("sweep", "sweep").returncode == 0
    make(launching, a="echo new >> ran")
    answer = launching.launcher("sweep", "sweep")
    assert answer.returncode == 2 and f"{folder / 'members/a'} was done with another command" in answer.stderr


def test_runs_over_a_grid_are_runs_like_any_other(launching):
    dry = launching.launcher("sweep", "small.yaml", "--over", "optim.lr=[1e-3,2e-3]", "--over", "run.seed=[1,2]", "--dry-run")
    assert dry.returncode == 0 and not (launching.folder / "runs").exists(), dry.stderr
    assert dry.stdout.count(" -m launcher supervise ") == 4 and "1 at once" in dry.stdout
    words = ("--over", "optim.lr=[1e-3,2e-3]", "--parallel", "2", "train.steps=6")
    done = launching.launcher("sweep", "small.yaml", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "small-lr0.001: done" in done.stdout and "all 2 members are done" in done.stdout
    shown = launching.launcher("status").stdout
    assert [line.split()[:3] for line in shown.splitlines()[1:]] == [["small-lr0.001", "finished", "6/6"], ["small-lr0.002", "finished", "6/6"]]
    table = launching.launcher("sweep", "runs/sweep-small", "--status").stdout
    assert "2/2 done" in table and "small-lr0.002  finished  6/6" in table
    made = read_sweep(launching.folder / "runs/sweep-small")
    assert made.of_runs and made.folder == launching.folder and made.cluster["processes_per_node"] == 2
    again = launching.launcher("sweep", "small.yaml", *words)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "go on with it: launcher sweep" in again.stderr


@pytest.mark.slow
def test_a_stopped_grid_saves_its_runs_and_goes_on_from_there(launching):
    process = launching.start("sweep", "small.yaml", "--over", "run.seed=[1,2]", "--parallel", "2", "train.steps=100")
    runs = [RunDirectory(launching.folder / "runs" / f"small-seed{seed}") for seed in (1, 2)]
    launching.wait_for(lambda: all(run.metrics() for run in runs))
    os.kill(process.pid, signal.SIGINT)
    ended = launching.finish(process)
    assert ended.returncode == 130, ended
    stopped = [event["step"] for run in runs for event in run.events() if event["event"] == "preempted"]
    assert len(stopped) == 2
    assert launching.launcher("sweep", "runs/sweep-small", "--parallel", "2").returncode == 0
    for run, step in zip(runs, stopped):
        assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, step]
        assert run.events()[-1]["event"] == "finished"
