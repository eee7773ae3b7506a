"""Every way to damage a checkpoint: it is found, set aside, and the one before it is taken."""

import json
import shutil

import pytest

from robustbert.checkpoint.manifest import COMMITTED, MANIFEST
from robustbert.job import Job
from tests.train.small_run import losses, make_run, train

pytestmark = pytest.mark.faults
FILES = ("rank_00000.bin", "rank_00001.bin", "index.json", MANIFEST, COMMITTED)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Eight steps of two processes, with checkpoints after 4 and 8."""
    from robustbert.testing import run_on_ranks

    folder = tmp_path_factory.mktemp("damage")
    config, run = make_run(folder, "run", ("cluster.processes_per_node=2", "train.steps=8", "checkpoint.interval=4"))
    run_on_ranks(train, 2, config, run)
    return config, run


@pytest.fixture
def run(saved, tmp_path):
    config, original = saved
    copy = type(original)(tmp_path / "run")
    shutil.copytree(original.path, copy.path)
    return config, copy


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def edit_the_manifest(path):
    record = json.loads((path.parent / MANIFEST).read_text())
    record["state"]["step"] = 7
    (path.parent / MANIFEST).write_text(json.dumps(record, indent=1))


CASES = [(damage, name) for damage in (truncate, remove, flip_a_bit) for name in FILES] + [(edit_the_manifest, MANIFEST)]


@pytest.mark.parametrize(("damage", "name"), CASES, ids=[f"{damage.__name__}-{name}" for damage, name in CASES])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(damage, name, run):
    config, run = run
    before = losses(run)
    damage(run.checkpoints / "step_00000008" / name)
    assert train(Job(), config, run) == "finished"
    (rejected,) = [event for event in run.events() if event["event"] == "checkpoint_rejected"]
    assert "step_00000008" in rejected["path"] and (run.checkpoints / "rejected_step_00000008").exists()
    assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, 4]
    for step, values in losses(run).items():
        assert values[0] == pytest.approx(before[step][0], rel=1e-5)  # another number of processes


@pytest.mark.parametrize("is_staging", [False, True])
def test_a_folder_half_written_does_not_count(is_staging, run):
    config, run = run
    good = run.checkpoints / "step_00000008"
    half = run.checkpoints / (".staging_step_00000012" if is_staging else "step_00000012")
    half.mkdir()
    (half / FILES[0]).write_bytes((good / FILES[0]).read_bytes()[:1000])
    assert train(Job(), config, run) == "finished"
    (rejected,) = [event for event in run.events() if event["event"] == "checkpoint_rejected"]
    assert "step_00000012" in rejected["path"] and not half.exists()
    assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, 8]


def test_without_any_good_checkpoint_a_run_starts_over_only_when_told_to(run):
    from robustbert.checkpoint.manifest import CheckpointError
    from robustbert.config import load_config

    config, run = run
    shutil.rmtree(run.checkpoints)
    with pytest.raises(CheckpointError, match="fault_tolerance.start_over=true"):
        train(Job(), config, run)
    config = load_config(run.config_file, ["fault_tolerance.start_over=true"])
    assert train(Job(), config, run) == "finished"
    assert [event["step"] for event in run.events() if event["event"] == "started"] == [0, 0]


def test_a_checkpoint_that_is_being_read_is_not_removed(tmp_path):
    from robustbert.checkpoint.manifest import committed_checkpoints
    from robustbert.checkpoint.retention import held_for_reading, remove_old
    from robustbert.config import CheckpointConfig

    for step in (1, 2, 3):
        folder = tmp_path / f"step_{step:08d}"
        folder.mkdir()
        (folder / COMMITTED).write_text("")
    oldest = tmp_path / "step_00000001"
    keep_one = CheckpointConfig(interval=1, keep_last=1)
    with held_for_reading(oldest):
        remove_old(tmp_path, keep_one)
        assert [folder.name for folder in committed_checkpoints(tmp_path)] == ["step_00000001", "step_00000003"]
    remove_old(tmp_path, keep_one)
    assert [folder.name for folder in committed_checkpoints(tmp_path)] == ["step_00000003"]
