"""The state of a run from its events, its metrics and its supervisor."""

import pytest

from launcher.attempt import newest_checkpoint_step
from launcher.run_status import read_status, status_table, time_left_s
from launcher.supervisor_record import RunIsSupervised, SupervisorRecord, hold_lock
from robustbert.config import dump_config, load_config
from robustbert.run_directory import RunDirectory


@pytest.fixture
def run(launching):
    directory = launching.run_directory()
    directory.path.mkdir(parents=True)
    directory.config_file.write_text(dump_config(load_config(launching.folder / "small.yaml", ["train.steps=100"])))
    directory.append_event("submitted")
    return directory


@pytest.mark.parametrize(
    ("events", "alive", "gone"),
    [
        (["preparing"], "preparing", "interrupted"),
        (["preparing", "prepared"], "starting", "interrupted"),
        (["started"], "running", "interrupted"),
        (["started", "evaluated", "checkpoint_saved"], "running", "interrupted"),
        (["started", "rank_lost", "restarted"], "restarting", "interrupted"),
        (["started", "preempted"], "stopping", "stopped"),
        (["started", "rank_lost", "failed"], "failed", "failed"),
        (["started", "finished"], "finished", "finished"),
        (["started", "finished", "restarted"], "restarting", "interrupted"),
        (
            ["started", "preempted", "restarted", "preparing", "started", "an_event_of_a_later_version"],
            "running",
            "interrupted",
        ),
    ],
)
def test_state_follows_from_the_events(run, events, alive, gone):
    for event in events:
        run.append_event(event, step=4)
    assert read_status(run).state == gone
    SupervisorRecord.of_this_process().write(run)
    assert read_status(run).state == alive


def test_status_has_the_newest_metrics(run):
    run.append_event("started", step=0)
    SupervisorRecord.of_this_process().write(run)
    for step in range(10, 60, 10):
        run.append_metrics(
            dict(step=step, loss=100.0 / step, perplexity=float("nan"), tokens_per_s=5000.0, step_time_s=2.0)
        )
    status = read_status(run)
    assert (status.step, status.total_steps, status.loss, status.left_s) == (50, 100, 2.0, 100.0)
    assert 0 <= status.metric_age_s < 20
    header, line = status_table([status]).splitlines()
    assert header.split() == ["RUN", "STATE", "STEP", "LOSS", "PPL", "TOKENS/S", "LEFT", "LAST", "METRIC"]
    assert line.split()[:7] == ["small", "running", "50/100", "2.000", "nan", "5,000", "1"]


def test_half_written_line_and_long_file_do_not_matter(run):
    for step in range(1, 2001):
        run.append_metrics(dict(step=step, loss=1.0, step_time_s=1.0))
    with open(run.metrics_file, "a") as file:
        file.write('{"step": 2001, "lo')
    assert read_status(run).step == 2000


def test_reason_of_a_failure_is_kept(run):
    run.append_event("failed", reason="no restart is left")
    assert read_status(run).detail == "no restart is left"


def test_time_left_is_unknown_before_the_first_metric():
    assert time_left_s([], 100) is None


def test_only_complete_checkpoints_count(run):
    for step, complete in ((100, True), (200, True), (300, False)):
        folder = run.checkpoints / f"step_{step:08d}"
        folder.mkdir(parents=True)
        if complete:
            (folder / "COMMITTED").touch()
    (run.checkpoints / "step_00000400.rejected").mkdir()
    (run.checkpoints / "step_00000400.rejected" / "COMMITTED").touch()
    assert newest_checkpoint_step(run) == 200


def test_lock_admits_one(run):
    with hold_lock(run):
        with pytest.raises(RunIsSupervised), hold_lock(RunDirectory(run.path)):
            pass
    with hold_lock(run):
        pass
