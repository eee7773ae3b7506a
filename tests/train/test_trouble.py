"""What counts as a step gone wrong, which data is left out, and which replica is the one that differs."""

import math

import pytest

from robustbert.config import load_config
from robustbert.optim.build import Update
from robustbert.train.replicas import differing_ranks
from robustbert.train.state import TrainState
from robustbert.train.trouble import SkippedData, SkippedWindow, find_trouble
from tests.train.small_run import CONFIG


@pytest.fixture
def config(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG.replace("TEXT", "text.txt"))
    overrides = ["fault_tolerance.spike_factor=10", "fault_tolerance.spike_window=20", "precision=fp16"]
    return load_config(tmp_path / "small.yaml", overrides)


def update(norm=1.0, applied=True, scale=4096.0):
    return Update(applied, 1e-3, norm if applied else None, scale)


@pytest.mark.parametrize(
    ("loss", "step", "words"),
    [
        (3.0, update(9.9), None),
        (3.0, update(10.1), "the gradient norm 10.1 is 10.1 times the median of the last 20"),
        (math.nan, update(), "the loss is nan"),
        (math.inf, update(), "the loss is inf"),
        (3.0, update(math.inf), "the gradient norm is inf"),
        (3.0, update(applied=False), None),  # an overflow that the loss scale takes care of
        (math.nan, update(applied=False), None),
        (3.0, update(applied=False, scale=2.0**-13), "an overflow at the smallest loss scale (0.00012207)"),
    ],
)
def test_what_is_wrong_with_a_step(loss, step, words, config):
    state = TrainState(recent_grad_norms=[1.0] * 20)
    assert find_trouble(config, state, loss, step) == words
    joined = words is None and step.applied
    assert state.recent_grad_norms == ([1.0] * 19 + [step.grad_norm] if joined else [1.0] * 20)


def test_a_few_norms_tell_no_spike(config):
    state = TrainState(recent_grad_norms=[1.0] * 15)
    assert find_trouble(config, state, 3.0, update(1000.0)) is None


def test_windows_of_data_are_left_out_even_where_they_touch():
    class Alone:
        is_main = False

        def broadcast_from_main(self, value):
            return []

    from pathlib import Path

    from robustbert.run_directory import RunDirectory

    skipped = SkippedData(RunDirectory(Path("nowhere")), Alone())
    skipped.add(SkippedWindow(5, 8, "a spike"))
    skipped.add(SkippedWindow(8, 10, "another"))
    assert [skipped.next_step(step) for step in (4, 5, 7, 8, 9, 10)] == [4, 10, 10, 10, 10, 10]


@pytest.mark.parametrize(
    ("records", "ranks"),
    [
        ([(0, 0, 7, 7)] * 3, []),
        ([(0, 0, 7, 7), (0, 0, 7, 8), (0, 0, 7, 7)], [1]),
        ([(0, 0, 7, 7), (0, 1, 9, 9), (0, 0, 7, 7), (0, 1, 9, 9)], []),  # other shards have other sums
        ([(0, 0, 7, 7), (0, 0, 8, 8)], [0, 1]),  # of two, nobody knows which
        ([(0, 0, 7, 7), (1, 0, 1, 1), (0, 0, 7, 7), (1, 0, 2, 2), (0, 0, 7, 7), (1, 0, 1, 1)], [3]),
    ],
)
def test_the_minority_of_the_replicas_is_named(records, ranks):
    assert differing_ranks(records) == ranks
