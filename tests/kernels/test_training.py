"""Training with the kernels on CPU beside training with torch's operators, and at layouts."""

import dataclasses
import statistics

import pytest

from robustbert.job import Job
from robustbert.kernels import attention, build, elementwise
from robustbert.kernels.build import load_kernels
from robustbert.optim import gradient_norm
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, Layout, Recipe, train

pytestmark = pytest.mark.skipif(load_kernels().library is None, reason=f"no kernels here, because {load_kernels().missing}")
# Heads of 16 and widths of multiples of 16: what the kernels take.
SUITED = dataclasses.replace(MODEL, num_layers=2, hidden_size=64, ffn_hidden_size=128)
WITH_DROPOUT = dataclasses.replace(SUITED, dropout=0.1, attention_dropout=0.1)


def losses(recipe: Recipe) -> list[float]:
    return [loss for loss, _ in train(Job(), Layout(), recipe)]


@pytest.fixture
def without_kernels(monkeypatch):
    """A function that takes them away."""

    def take_away() -> None:
        for module in (attention, elementwise, gradient_norm):
            monkeypatch.setattr(module, "load_kernels", lambda: build.Kernels(None, "they were taken away"))

    return take_away


def test_fifty_steps_without_dropout_are_those_of_torchs_operators(without_kernels):
    recipe = Recipe(model=SUITED, num_steps=50)
    with_kernels = losses(recipe)
    without_kernels()
    plain = losses(recipe)
    assert plain != with_kernels, "they were used"
    assert max(abs(one - other) / other for one, other in zip(with_kernels, plain)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_dropout_the_curves_differ_less_than_those_of_two_seeds(precision, without_kernels):
    def ends(seed: int) -> float:
        return statistics.mean(losses(Recipe(model=WITH_DROPOUT, num_steps=50, seed=seed, precision=precision))[-10:])

    seeds = range(4)
    with_kernels = [ends(seed) for seed in seeds]
    without_kernels()
    plain = [ends(seed) for seed in seeds]
    between_seeds = max(plain) - min(plain)
    difference = statistics.mean(one - other for one, other in zip(with_kernels, plain))
    print(f"{precision}: kernels - torch {difference:+.4f}, between seeds {between_seeds:.4f}, torch {statistics.mean(plain):.4f}")
    assert abs(difference) < between_seeds


@pytest.mark.parametrize(
    "layout",
    [
        Layout(data=2),
        pytest.param(Layout(tensor=2, sequence=True), marks=pytest.mark.slow),
        pytest.param(Layout(pipeline=2), marks=pytest.mark.slow),
    ],
    ids=["dp2", "tp2-sequence-parallel", "pp2"],
)
def test_twenty_steps_equal_the_one_process_run(layout):
    """With dropout where it does not depend on the layout: data parallelism splits neither a layer nor a micro-batch."""
    recipe = Recipe(model=WITH_DROPOUT if layout.data == 2 else SUITED)
    expected = train(Job(), Layout(), recipe)
    found = run_on_ranks(train, 2, layout, recipe)[0]
    for (loss, norm), (right_loss, right_norm) in zip(found, expected):
        assert loss == pytest.approx(right_loss, rel=1e-6) and norm == pytest.approx(right_norm, rel=1e-5)
