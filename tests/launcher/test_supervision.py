"""Whole runs under real mpirun with two processes and a fake training: the ends that a run can come to."""

import json
import os
import signal
import time

import pytest

from launcher.attempt import newest_checkpoint_step
from robustbert.config import dump_config, load_config

pytestmark = [pytest.mark.timeout(240), pytest.mark.faults]


def test_run_from_submit_to_summary(launching):
    done = launching.launcher("submit", "small.yaml")
    assert done.returncode == 0, done.stderr + launching.logs()
    assert launching.event_names() == [
        *("submitted", "preparing", "prepared", "started", "checkpoint_saved", "checkpoint_saved", "finished")
    ]
    for text in (
        "2 processes = tensor 1 x pipeline 1 x data 2",
        "training started at step 0",
        "step 10/10",
        "loss",
        "5,000",
        "the summary of",
    ):
        assert text in done.stdout
    assert "finished at step 10: held-out perplexity 90.00, 500.00 by token frequency alone" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr and "of no use" not in done.stdout
    assert launching.processes() == []


def test_crash_on_one_rank_ends_all_and_shows_its_traceback_first(launching):
    done = launching.launcher("submit", "small.yaml", "fault_tolerance.max_restarts=0", FAKE_TRAINING="crash")
    assert done.returncode == 1
    assert launching.processes() == []
    traceback, failed = done.stdout.index("the third step broke"), done.stdout.index("\nfailed: ")
    assert done.stdout.index("--- rank 1 ---") < traceback < failed
    assert "rank 1 failed" in done.stdout and "launcher resume small" in done.stdout
    record = json.loads(launching.run_directory().rank_error(1).read_text())
    assert record["rank"] == 1 and record["kind"] == "error" and "misbehave" in record["traceback"]
    lost = next(event for event in launching.run_directory().events() if event["event"] == "rank_lost")
    assert lost["time"] - record["time"] < 5, "the others were not ended within seconds"


def test_crash_ends_others_that_ignore_signals(launching):
    done = launching.launcher("submit", "small.yaml", "fault_tolerance.max_restarts=0", FAKE_TRAINING="deaf_crash")
    assert done.returncode == 1 and "the third step broke" in done.stdout
    assert launching.processes() == []


def test_killed_rank_is_named_and_the_run_restarts(launching):
    done = launching.launcher("submit", "small.yaml", FAKE_TRAINING="kill_once")
    assert done.returncode == 0, done.stdout + launching.logs()
    lost = next(event for event in launching.run_directory().events() if event["event"] == "rank_lost")
    assert lost["rank"] == 1 and "signal 9" in lost["reason"]
    assert launching.event_names().count("restarted") == 1
    assert "restart 1 of 1 from step 0" in done.stdout


def test_restarts_end_when_no_checkpoint_is_saved_between_them(launching):
    done = launching.launcher("submit", "small.yaml", "checkpoint.interval=100", FAKE_TRAINING="crash")
    assert done.returncode == 1
    names = launching.event_names()
    assert names.count("rank_lost") == 2 and names.count("restarted") == 1 and names[-1] == "failed"
    assert "1 restart in a row without any checkpoint" in done.stdout
    assert (launching.run_directory().logs / "rank_00001.error.001.json").exists(), "the first attempt's record is lost"


def test_restarts_are_counted_anew_after_a_checkpoint(launching):
    # Every attempt crashes three steps after where it began, one step after the checkpoint at each second step.
    done = launching.launcher("submit", "small.yaml", "checkpoint.interval=2", "train.steps=6", FAKE_TRAINING="crash")
    assert done.returncode == 0, done.stdout + launching.logs()
    assert launching.event_names().count("restarted") == 2, "more than max_restarts=1, each after a new checkpoint"


def test_user_error_is_not_restarted(launching):
    done = launching.launcher("submit", "small.yaml", FAKE_TRAINING="user_error")
    assert done.returncode == 1
    assert "failed: data.train: the corpus holds no sample; give more text" in done.stdout
    assert "restarted" not in launching.event_names()
    assert "Traceback" not in done.stdout


def test_exit_code_zero_without_finished_is_a_failure(launching):
    done = launching.launcher("submit", "small.yaml", "fault_tolerance.max_restarts=0", FAKE_TRAINING="silent")
    assert done.returncode == 1
    assert "without finishing" in done.stdout


def test_error_of_data_preparation_is_one_line(launching):
    done = launching.launcher("submit", "small.yaml", FAKE_PREPARE="user_error")
    assert done.returncode == 1
    assert "failed: data preparation: text.txt: the text is empty" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_failed_summary_of_a_single_process_run_is_told(launching):
    done = launching.launcher("submit", "small.yaml", "cluster.processes_per_node=1", FAKE_SUMMARY="3")
    assert done.returncode == 1
    assert "the training is finished, do this part again: " in done.stdout


def test_ctrl_c_saves_a_checkpoint_and_resume_goes_on_from_it(launching):
    running = launching.start("submit", "small.yaml", "train.steps=400", "checkpoint.interval=1000")
    launching.wait_for_step()
    running.send_signal(signal.SIGINT)
    done = launching.finish(running)
    assert done.returncode == 130, done.stdout + done.stderr
    assert "press Ctrl-C again to kill" in done.stdout and "launcher resume small" in done.stdout
    stopped = launching.wait_for_event("preempted")
    assert launching.event_names().count("preempted") == 1
    assert launching.processes() == []
    assert "stopped     cancelled by the user" in launching.launcher("status", "small").stdout

    resumed = launching.launcher("resume", "small", f"train.steps={stopped['step'] + 3}")
    assert resumed.returncode == 0, resumed.stdout + launching.logs()
    assert f"training started at step {stopped['step']}" in resumed.stdout
    assert (launching.run_directory().path / "config.before-resume-1.yaml").exists()


def test_second_ctrl_c_kills_processes_that_do_not_listen(launching):
    running = launching.start("submit", "small.yaml", "train.steps=4000", FAKE_TRAINING="deaf")
    launching.wait_for_step()
    running.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert running.poll() is None
    running.send_signal(signal.SIGINT)
    done = launching.finish(running, timeout_s=8)
    assert done.returncode == 130
    assert launching.event_names()[-1] == "preempted"
    assert launching.processes() == [], "a process of the job is left, also the one in a session of its own"


@pytest.mark.parametrize(("words", "name"), [([], "SIGUSR1"), (["TERM"], "SIGTERM")])
def test_a_notice_or_sigterm_to_the_supervisor_saves_and_ends_with_exit_code_75(launching, words, name):
    running = launching.start("submit", "small.yaml", "train.steps=4000", "checkpoint.interval=4000")
    launching.wait_for_step()
    sent = launching.launcher("signal", "small", *words)
    assert sent.returncode == 0 and f"{name} sent to the supervisor" in sent.stdout and "exit code 75" in sent.stdout, sent
    assert launching.finish(running).returncode == 75
    assert launching.processes() == []
    assert f"preempted by {name}" in launching.launcher("status", "small").stdout
    stopped = launching.wait_for_event("preempted")["step"]
    assert launching.wait_for_event("checkpoint_saved")["step"] == stopped
    again = launching.launcher("signal", "small", *words)
    assert again.returncode == 2 and f"is not running: stopped at step {stopped}; launcher resume small" in again.stderr


def test_detached_run_is_watched_and_cancelled(launching):
    submitted = launching.launcher("submit", "small.yaml", "train.steps=4000", "--detach")
    assert submitted.returncode == 0 and "launcher cancel small" in submitted.stdout
    launching.wait_for_step()
    launching.wait_for(lambda: "running" in launching.launcher("status").stdout)
    again = launching.launcher("submit", "small.yaml")
    assert again.returncode == 2 and "run 'small' exists (running, step" in again.stderr
    resumed = launching.launcher("resume", "small")
    assert resumed.returncode == 2 and "running" in resumed.stderr
    cancelled = launching.launcher("cancel", "small")
    assert cancelled.returncode == 0 and "stopped at step" in cancelled.stdout
    assert launching.processes() == []


def test_cancel_now_kills_what_does_not_listen(launching):
    launching.launcher("submit", "small.yaml", "train.steps=4000", "--detach", FAKE_TRAINING="deaf")
    launching.wait_for_step()
    cancelled = launching.launcher("cancel", "small", "--now", timeout_s=10)
    assert cancelled.returncode == 0, cancelled.stderr
    assert launching.processes() == []


def test_cancel_during_data_preparation(launching):
    launching.launcher("submit", "small.yaml", "--detach", FAKE_PREPARE="slow")
    launching.wait_for_event("preparing")
    assert "preparing" in launching.launcher("status").stdout
    assert "stopped at step 0" in launching.launcher("cancel", "small", timeout_s=10).stdout
    assert launching.processes() == []


def test_run_outlives_the_terminal(launching):
    running = launching.start("submit", "small.yaml", "train.steps=40")
    launching.wait_for_step()
    os.killpg(running.pid, signal.SIGHUP)
    launching.finish(running)
    launching.wait_for_event("finished")


def test_second_supervisor_is_refused(launching):
    launching.launcher("submit", "small.yaml", "train.steps=4000", "--detach")
    launching.wait_for_step()
    second = launching.launcher("supervise", str(launching.run_directory().path))
    assert second.returncode == 2 and "already running" in second.stderr


def test_killed_supervisor_leaves_no_process_and_the_run_resumes(launching):
    launching.launcher("submit", "small.yaml", "train.steps=4000", "--detach")
    launching.wait_for_step()
    supervisor = json.loads((launching.run_directory().path / "supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    launching.wait_for(lambda: not launching.processes(), timeout_s=10)
    assert "interrupted" in launching.launcher("status").stdout
    steps = (newest_checkpoint_step(launching.run_directory()) or 0) + 8
    resumed = launching.launcher("resume", "small", f"train.steps={steps}")
    assert resumed.returncode == 0, resumed.stdout + launching.logs()


def test_name_with_spaces_and_semicolon_reaches_no_shell(launching):
    name = "a b; touch x$(touch y)"
    done = launching.launcher("submit", "small.yaml", f"run.name={name!r}")
    assert done.returncode == 0, done.stderr + launching.logs()
    assert "finished" in launching.event_names(name)
    assert not list(launching.folder.rglob("x*")) and not list(launching.folder.rglob("y"))
    assert "finished" in launching.launcher("status", name).stdout


@pytest.mark.slow
def test_of_three_resumes_at_once_one_is_taken_and_the_others_change_nothing(launching):
    launching.launcher("submit", "small.yaml", "train.steps=6")
    resumes = [launching.start("resume", "small", f"train.steps={steps}") for steps in (40, 50, 60)]
    done = [launching.finish(process) for process in resumes]
    assert sorted(process.returncode for process in done) == [0, 2, 2], [process.stderr for process in done]
    steps = (40, 50, 60)[[process.returncode for process in done].index(0)]
    run = launching.run_directory()
    assert load_config(run.config_file).train.steps == steps and run.metrics()[-1]["step"] == steps
    assert launching.event_names().count("config_changed") == 1 and len(list(run.path.glob("config.before-resume-*"))) == 1
    for process in done:
        assert process.returncode == 0 or (process.stderr.count("\n") == 1 and "launcher: error: run 'small' is" in process.stderr)


@pytest.mark.slow
def test_a_file_changed_under_a_running_run_changes_no_restart_of_it(launching):
    running = launching.start("submit", "small.yaml", "train.steps=100", "checkpoint.interval=1", FAKE_TRAINING="kill_once")
    launching.wait_for_event("preparing")
    run = launching.run_directory()
    run.config_file.write_text(dump_config(load_config(run.config_file, ["train.steps=7"])))
    assert launching.finish(running).returncode == 0, launching.logs()
    assert launching.event_names().count("restarted") == 1 and launching.wait_for_event("finished")["step"] == 100
    assert not list(run.path.glob("supervised.*"))
