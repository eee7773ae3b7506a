"""What is saved is what is read, at the same layout and at another."""

import dataclasses
import shutil
import time

import pytest
import torch

from robustbert.checkpoint.manifest import committed_checkpoints
from robustbert.checkpoint.pieces import own_pieces
from robustbert.checkpoint.restore import restore
from robustbert.checkpoint.saving import CheckpointWriter, Snapshot
from robustbert.config import CheckpointConfig
from robustbert.run_directory import RunDirectory
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, Layout, Recipe, opened, run_step

WITH_DROPOUT = Recipe(model=dataclasses.replace(MODEL, dropout=0.1, attention_dropout=0.1), num_steps=8)
SAVED_AFTER = 4


def check_part(job, layout, recipe, folder, is_resumed):
    """Steps 0 to 8 with a save after the fourth (is_resumed None: without), or steps 4 to 8 from what was saved."""
    seed = 99 if is_resumed else recipe.seed  # other initial weights: all must come from the files
    with opened(job, layout, dataclasses.replace(recipe, seed=seed)) as (mesh, model, optimizer):
        if is_resumed:
            restore(committed_checkpoints(folder / "checkpoints")[-1], model, optimizer, mesh)
        history = []
        for step in range(SAVED_AFTER if is_resumed else 0, recipe.num_steps):
            loss, update = run_step(mesh, model, optimizer, recipe, step)
            history.append((loss, update.grad_norm, update.loss_scale))
            if is_resumed is False and step == SAVED_AFTER - 1:
                save(folder, mesh, model, optimizer, SAVED_AFTER)
        return history


def save(folder, mesh, model, optimizer, step):
    """One checkpoint, behind which training goes on."""
    store = torch.distributed.distributed_c10d._get_default_store()
    writer = CheckpointWriter(CheckpointConfig(asynchronous=True), RunDirectory(folder), mesh, store)
    snapshot = Snapshot({"step": step}, {}, optimizer.scalars(), time.perf_counter())
    writer.start(snapshot, own_pieces(model, optimizer, mesh))
    model.complete_weights()
    with torch.no_grad():
        kept = [parameter.clone() for parameter in model.parameters()]
        for parameter in model.parameters():
            parameter.zero_()  # what is written must be the copy
    assert writer.wait()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), kept):
            parameter.copy_(value)


LAYOUTS = {
    "one-process": Layout(),
    "dp2-whole-optimizer": Layout(data=2, distributed_optimizer=False),
    "tp2-dp2-sequence-parallel": Layout(tensor=2, data=2, sequence=True),
    "tp2-pp2": Layout(tensor=2, pipeline=2),
}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *[(name, "fp32") for name in LAYOUTS if LAYOUTS[name].num_ranks < 4],
        ("tp2-dp2-sequence-parallel", "fp16"),
        *[pytest.param(name, "fp16", marks=pytest.mark.slow) for name in LAYOUTS if name != "tp2-dp2-sequence-parallel"],
        *[pytest.param(name, "fp32", marks=pytest.mark.slow) for name in LAYOUTS if LAYOUTS[name].num_ranks >= 4],
    ],
)
def test_resume_is_bitwise_equal(name, precision, tmp_path):
    layout, recipe = LAYOUTS[name], dataclasses.replace(WITH_DROPOUT, precision=precision)
    whole = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, False)[0]
    resumed = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, True)[0]
    assert resumed == whole[SAVED_AFTER:]


@pytest.mark.slow
def test_resume_with_lamb_is_bitwise_equal(tmp_path):
    layout = LAYOUTS["tp2-dp2-sequence-parallel"]
    recipe = dataclasses.replace(WITH_DROPOUT, precision="fp16", optim=dataclasses.replace(WITH_DROPOUT.optim, name="lamb"))
    whole = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, False)[0]
    resumed = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, True)[0]
    assert resumed == whole[SAVED_AFTER:]


def check_leg(job, layout, recipe, folder, first, last):
    """Steps [first, last) from what was saved after `first`; saves after `last`. Returns the losses and norms."""
    with opened(job, layout, dataclasses.replace(recipe, seed=99 if first else recipe.seed)) as (mesh, model, optimizer):
        if first:
            restore(committed_checkpoints(folder / "checkpoints")[-1], model, optimizer, mesh)
        history = []
        for step in range(first, last):
            loss, update = run_step(mesh, model, optimizer, recipe, step)
            history.append((loss, update.grad_norm))
        save(folder, mesh, model, optimizer, last)
        return history


THREE_WAYS = Layout(tensor=2, pipeline=2, data=2)
OTHERS = {"one-process": Layout(), "tp4": Layout(tensor=4), "pp2-dp2": Layout(pipeline=2, data=2)}


@pytest.fixture(scope="module")
def uninterrupted():
    recipe = dataclasses.replace(WITH_DROPOUT, model=MODEL)
    return run_on_ranks(check_part, 1, Layout(), recipe, None, None)[0]


@pytest.fixture(scope="module")
def saved_three_ways(tmp_path_factory):
    """Four steps at TP2 x PP2 x DP2 with the distributed optimizer, and their checkpoint."""
    folder = tmp_path_factory.mktemp("three_ways")
    recipe = dataclasses.replace(WITH_DROPOUT, model=MODEL)
    return folder, run_on_ranks(check_leg, 8, THREE_WAYS, recipe, folder, 0, 4)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_saved_at_tp2_pp2_dp2_goes_on_at_another_layout_and_back(name, saved_three_ways, uninterrupted, tmp_path):
    recipe = dataclasses.replace(WITH_DROPOUT, model=MODEL)
    original, history = saved_three_ways
    shutil.copytree(original, tmp_path / "run")
    other = OTHERS[name]
    history = history + run_on_ranks(check_leg, other.num_ranks, other, recipe, tmp_path / "run", 4, 6)[0]
    history += run_on_ranks(check_leg, 8, THREE_WAYS, recipe, tmp_path / "run", 6, 8)[0]
    for (loss, norm), (expected, expected_norm, _) in zip(history, uninterrupted, strict=True):
        assert abs(loss - expected) / expected < 1e-5 and abs(norm - expected_norm) / expected_norm < 1e-4


def test_a_checkpoint_of_another_model_is_refused(saved_three_ways, tmp_path):
    folder, _ = saved_three_ways
    larger = dataclasses.replace(WITH_DROPOUT, model=dataclasses.replace(MODEL, hidden_size=64))
    with pytest.raises(AssertionError, match="it is of another model"):
        run_on_ranks(check_leg, 1, Layout(), larger, folder, 4, 5)
