"""A disk that fills up: training goes on or ends cleanly, the older checkpoints stay whole."""

import os
import shutil
import subprocess

import pytest

from robustbert.checkpoint.manifest import committed_checkpoints, verify

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180)]
LEFT_BYTES = 100_000  # less than a checkpoint


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted (needs root): {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk):
    """All but LEFT_BYTES."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - LEFT_BYTES))
    return ballast


def start(lab, disk, name, *overrides):
    return lab.submit(name, {"slow_s": 0.2}, f"run.dir={disk}", *overrides, folder=disk)


def test_a_checkpoint_that_does_not_fit_is_written_again_when_there_is_room(lab, small_disk, undisturbed):
    run = start(lab, small_disk, "again")
    run.wait_for("started")
    ballast = fill(small_disk)
    failed = run.wait_for("checkpoint_failed")
    ballast.unlink()
    assert "No space left on device" in failed["reason"] and failed["tries_again"]
    assert run.finish() == 0, run.story()
    assert run.final_weights() == undisturbed.final_weights()
    assert not list(run.run.checkpoints.glob(".staging*"))


def test_a_disk_that_stays_full_ends_the_run_with_its_checkpoints_whole(lab, small_disk, undisturbed):
    run = start(lab, small_disk, "full", "checkpoint.retries=0")
    run.wait_for("checkpoint_saved")
    ballast = fill(small_disk)
    assert run.finish() == 1, run.story()
    assert "No space left on device" in run.events("checkpoint_failed")[0]["reason"]
    (failed,) = run.events("failed")
    assert "could not be saved" in failed["reason"] and "launcher resume full" in failed["reason"]
    for folder in committed_checkpoints(run.run.checkpoints):
        verify(folder)
    ballast.unlink()
    resumed = lab.resume(run.run)
    assert resumed.finish() == 0, resumed.story()
    assert resumed.final_weights() == undisturbed.final_weights()


def test_events_and_metrics_that_cannot_be_written_do_not_end_a_run(small_disk):
    from robustbert.run_directory import RunDirectory

    run = RunDirectory(small_disk)
    run.append_event("started", step=0)
    with open(small_disk / "ballast", "wb") as file:
        while True:
            try:
                os.write(file.fileno(), bytes(4096))
            except OSError:
                break
    for number in range(1000):
        run.append_event("evaluated", step=number, text="x" * 100)
        run.append_metrics({"step": number})
    (small_disk / "ballast").unlink()
    run.append_event("finished", step=1000)
    events = run.events()
    assert events[0]["event"] == "started" and events[-1] == {**events[-1], "event": "finished", "step": 1000}
