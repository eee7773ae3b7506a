"""What is saved is what is read, at the same layout and at another."""

import dataclasses
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
    """Steps 0 to 8 with a save after the fourth, or steps 4 to 8 from what was saved."""
    seed = 99 if is_resumed else recipe.seed  # other initial weights: all must come from the files
    with opened(job, layout, dataclasses.replace(recipe, seed=seed)) as (mesh, model, optimizer):
        if is_resumed:
            restore(committed_checkpoints(folder / "checkpoints")[-1], model, optimizer, mesh)
        history = []
        for step in range(SAVED_AFTER if is_resumed else 0, recipe.num_steps):
            loss, update = run_step(mesh, model, optimizer, recipe, step)
            history.append((loss, update.grad_norm, update.loss_scale))
            if not is_resumed and step == SAVED_AFTER - 1:
                save(folder, mesh, model, optimizer)
        return history


def save(folder, mesh, model, optimizer):
    """One checkpoint, behind which training goes on."""
    store = torch.distributed.distributed_c10d._get_default_store()
    writer = CheckpointWriter(CheckpointConfig(asynchronous=True), RunDirectory(folder), mesh, store)
    snapshot = Snapshot({"step": SAVED_AFTER}, {}, optimizer.scalars(), time.perf_counter())
    writer.start(snapshot, own_pieces(model, optimizer, mesh))
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


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_resume_is_bitwise_equal(name, precision, tmp_path):
    layout, recipe = LAYOUTS[name], dataclasses.replace(WITH_DROPOUT, precision=precision)
    whole = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, False)[0]
    resumed = run_on_ranks(check_part, layout.num_ranks, layout, recipe, tmp_path, True)[0]
    assert resumed == whole[SAVED_AFTER:]


def test_checkpoint_tp2_pp2_loads_as_dp2(tmp_path):
    recipe = dataclasses.replace(WITH_DROPOUT, model=MODEL)
    whole = run_on_ranks(check_part, 4, Layout(tensor=2, pipeline=2), recipe, tmp_path, False)[0]
    resumed = run_on_ranks(check_part, 2, Layout(data=2), recipe, tmp_path, True)[0]
    for (a, norm_a, _), (b, norm_b, _) in zip(resumed, whole[SAVED_AFTER:]):
        assert abs(a - b) / b < 1e-5 and abs(norm_a - norm_b) / norm_b < 1e-4
