"""monitoring.tensorboard: what the event files hold is what metrics.jsonl and the events tell."""

import math

import pytest

from launcher.submit import check_extras
from robustbert.config import ConfigError, load_config
from robustbert.testing import run_on_ranks
from robustbert.train.tensorboard import TensorBoard
from tests.train.small_run import make_run, train


def read_scalars(run) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def line(step: int) -> dict:
    return {"time": 1000.0 + step, "step": step, "loss": 1.0 / step, "mfu": None, "lr": 1e-3}


def test_a_run_that_was_thrown_back_hides_its_later_steps(tmp_path):
    pytest.importorskip("tensorboard")
    _, run = make_run(tmp_path, "run")
    for first, last in ((1, 9), (6, 7)):
        writer = TensorBoard(run)
        for step in range(first, last + 1):
            writer.show(line(step))
        writer.close()
    scalars = read_scalars(run)
    assert set(scalars) == {"loss/train", "optimizer/lr"}
    assert scalars["loss/train"] == pytest.approx({step: 1.0 / step for step in range(1, 8)})


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    _, run = make_run(tmp_path, "run")
    (run.path / "tensorboard").write_text("in the way")
    writer = TensorBoard(run)
    writer.show(line(1))
    writer.show(line(2))
    writer.close()
    assert capsys.readouterr().err.count("\n") == 1


def test_without_the_package_the_way_out_is_named(tmp_path, monkeypatch):
    config, _ = make_run(tmp_path, "run", ("monitoring.tensorboard=true",))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'robustbert\[tensorboard\]'"):
        check_extras(config)
    check_extras(load_config(tmp_path / "run.yaml"))  # who does not ask for it does not need it


@pytest.mark.slow
def test_the_event_files_hold_what_the_run_has_recorded(tmp_path):
    pytest.importorskip("tensorboard")
    config, run = make_run(tmp_path, "run", ("monitoring.tensorboard=true", "train.steps=10"))
    run_on_ranks(train, 2, config, run)
    scalars = read_scalars(run)
    recorded = {record["step"]: record["loss"] for record in run.metrics()}
    assert scalars["loss/train"] == pytest.approx(recorded, rel=1e-6) and len(recorded) == 10
    events = {event["event"]: event for event in run.events()}
    held_out = {0: events["started"]["heldout_perplexity_before"], 8: events["evaluated"]["heldout_perplexity"]}
    held_out[10] = events["finished"]["heldout_perplexity"]
    assert scalars["perplexity/held_out"] == pytest.approx(held_out, rel=1e-6)
    assert scalars["loss/held_out"] == pytest.approx({step: math.log(value) for step, value in held_out.items()}, rel=1e-6)
