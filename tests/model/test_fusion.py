"""Compiled layers: one graph, no break, no recompilation from layer to layer or from batch to batch, and the eager losses."""

import dataclasses
import functools
import shutil

import pytest
import torch
import torch._dynamo as dynamo

from robustbert.config import ParallelConfig
from robustbert.convert.whole_model import one_process_mesh
from robustbert.model.attention import SDPA, describe_rows
from robustbert.model.build import build_model
from robustbert.parallel.random import seed_dropout
from robustbert.parallel.transfer import Transfer
from tests.parallel.small_training import MODEL, ROWS, SEQUENCE_LENGTH, Layout, Recipe, batches_of_step, train

CPU = torch.device("cpu")
DROPPING = dataclasses.replace(MODEL, dropout=0.1, attention_dropout=0.1)


def made_up_input(requires_grad=True):
    x = torch.randn(ROWS * SEQUENCE_LENGTH, 1, MODEL.hidden_size, requires_grad=requires_grad)
    return x, describe_rows(torch.tensor([SEQUENCE_LENGTH, 9]), ROWS, SEQUENCE_LENGTH, SDPA, CPU)


def test_a_layer_with_dropout_is_one_graph():
    with one_process_mesh() as mesh:
        layer = build_model(DROPPING, ParallelConfig(), mesh, seed=1).layers["0"].train()
        dynamo.reset()
        explanation = dynamo.explain(layer)(*made_up_input())
    assert (explanation.graph_count, explanation.graph_break_count) == (1, 0), explanation.break_reasons


def test_nothing_is_compiled_again_from_layer_to_layer_or_batch_to_batch(monkeypatch):
    """As on a GPU: packed batches, whose shapes do not follow the number of masks or the padding."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    dynamo.reset()
    dynamo.utils.counters.clear()
    with one_process_mesh() as mesh:
        model = build_model(dataclasses.replace(DROPPING, compile=True), ParallelConfig(), mesh, seed=1).train()
        batches = [dataclasses.replace(batch, most_predictions=20) for step in range(3) for batch in batches_of_step(step)]
        assert len({len(batch.targets_M) for batch in batches}) > 3
        for number, batch in enumerate(Transfer(CPU, packs=True)(batches)):
            seed_dropout(1, 0, number, mesh)
            model(batch.tokens_BS, batch.lengths_B, batch.masked_positions_M, None, batch.targets_M).backward()
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 3, "a layer, the loss' statistics, its gradient"
    assert not dynamo.utils.counters["graph_break"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on the CPU needs g++")
@pytest.mark.timeout(600)
def test_compiled_losses_equal_eager_ones():
    from robustbert.job import Job

    recipe = Recipe(num_steps=6)
    compiled = dataclasses.replace(recipe, model=dataclasses.replace(MODEL, compile=True))
    dynamo.reset()
    expected, found = train(Job(), Layout(), recipe), train(Job(), Layout(), compiled)
    for (loss, norm), (compiled_loss, compiled_norm) in zip(expected, found, strict=True):
        assert compiled_loss == pytest.approx(loss, rel=1e-5) and compiled_norm == pytest.approx(norm, rel=1e-3)


def test_a_compiler_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with one_process_mesh() as mesh:
        with pytest.raises(ValueError, match="model.compile: true needs a C\\+\\+ compiler"):
            build_model(dataclasses.replace(MODEL, compile=True), ParallelConfig(), mesh)
        build_model(dataclasses.replace(MODEL, compile="auto"), ParallelConfig(), mesh)
