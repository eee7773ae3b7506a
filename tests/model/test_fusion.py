"""Compiled layers: one graph, no break, no recompilation from layer to layer or from batch to batch, and the eager losses."""

import dataclasses
import functools
import shutil

import pytest
import torch
import torch._dynamo as dynamo
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensorMode

from robustbert.config import ParallelConfig
from robustbert.convert.whole_model import one_process_mesh
from robustbert.model.attention import EFFICIENT, FLASH, SDPA, describe_rows
from robustbert.model.build import build_model
from robustbert.parallel.random import seed_dropout
from robustbert.parallel.transfer import Transfer
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, PAIRS, ROWS, SEQUENCE_LENGTH, Layout, Recipe, batches_of_step, train

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


@pytest.mark.skipif(torch.__version__.startswith("2.9."), reason="torch 2.9 does not trace what is given fake tensors")
@pytest.mark.parametrize("kernel, precision", [(FLASH, "bf16"), (EFFICIENT, "fp32")])
def test_a_gpus_attention_is_part_of_the_layers_graph_forward_and_backward(kernel, precision):
    """Traced on fake tensors, without a break; what comes out is what the compiler gets on a GPU."""
    operators = []

    def note(graph, inputs):
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    dynamo.reset()
    with one_process_mesh() as mesh, FakeTensorMode(allow_non_fake_inputs=True):
        model = build_model(DROPPING, ParallelConfig(), mesh, precision, attention_kernel=kernel).train()
        x = torch.empty(ROWS * SEQUENCE_LENGTH, 1, MODEL.hidden_size, dtype=model.layers["0"].ffn.up.weight.dtype, requires_grad=True)
        rows = describe_rows(torch.empty(ROWS, dtype=torch.int32), ROWS, SEQUENCE_LENGTH, kernel, CPU)
        compiled = torch.compile(model.layers["0"], backend=aot_autograd(fw_compiler=note, bw_compiler=note), fullgraph=True)
        compiled(x, rows).float().sum().backward()
    name = f"aten._{kernel}_attention"
    assert [operator for operator in operators if "attention" in operator] == [f"{name}_forward.default", f"{name}_backward.default"]


def check_compiled(job, layout, recipe, compiles):
    """train(), with what is compiled seen by the compiler's front end alone."""
    torch.compile = functools.partial(torch.compile, backend="eager")
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, compile=compiles))
    return train(job, layout, recipe)


@pytest.mark.parametrize(
    "layout, recipe",
    [
        (Layout(tensor=2, sequence=True), Recipe(num_steps=3)),
        pytest.param(Layout(pipeline=2), dataclasses.replace(PAIRS, num_steps=3), marks=pytest.mark.slow),
    ],
    ids=["tp2-sequence-parallel", "pp2-pairs"],
)
def test_compiled_parts_train_alike_at_other_layouts_and_widths(layout, recipe):
    expected, found = (run_on_ranks(check_compiled, 2, layout, recipe, compiles)[0] for compiles in (False, True))
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-6)


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
