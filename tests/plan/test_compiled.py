"""Compiled layers in a simulation: the operations of eager ones, fewer kernels and bytes, and inductor's own choice of what is kept."""

import dataclasses
import shutil

import pytest
import torch
import torch._dynamo as dynamo

from robustbert.config import ParallelConfig, load_config
from robustbert.convert.whole_model import one_process_mesh
from robustbert.model.attention import SDPA, describe_rows
from robustbert.model.build import build_model
from robustbert.plan.simulation import compiles_layers, simulate_step, simulated_process
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.trace import StepTrace

ROWS, LENGTH = 8, 128
# Without dropout inside attention: there the CPU keeps other tensors than a GPU.
CONFIG = """
model: {num_layers: 2, hidden_size: 256, ffn_hidden_size: 1024, num_attention_heads: 4, max_sequence_length: 128, vocab_size: 512, attention_dropout: 0.0}
train: {micro_batch_size: 8, global_batch_size: 8}
data: {tokenizer: t, train: [{path: p}], sequence_length: 128}
"""


def configured(tmp_path, *overrides):
    (tmp_path / "run.yaml").write_text(CONFIG)
    return load_config(tmp_path / "run.yaml", list(overrides))


def kept_bytes(layer, x, rows) -> int:
    """What a layer's forward pass keeps for its backward pass, its weights left out."""
    layer(x, rows)  # the first call compiles
    weights = {parameter.untyped_storage()._cdata for parameter in layer.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = layer(x, rows)
    assert output.shape == x.shape
    return sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_step_has_the_operations_of_an_eager_one_and_moves_less(tmp_path, precision):
    eager, compiled = (
        simulate_step(configured(tmp_path, f"precision={precision}", f"model.compile={value}"), 1, 0) for value in ("false", "auto")
    )
    assert compiled.micro_batches.flops == pytest.approx(eager.micro_batches.flops, rel=1e-9)
    moved = [sum(num_bytes for _, num_bytes, _ in record.micro_batches.operators) for record in (eager, compiled)]
    assert moved[1] < 0.8 * moved[0]
    num_layers = 2
    assert len(compiled.micro_batches.operators) <= len(eager.micro_batches.operators) - 10 * num_layers
    assert compiled.position == eager.position


def test_tracing_a_layer_is_not_counted(tmp_path):
    with simulated_process(configured(tmp_path, "precision=bf16"), 1, 0) as (_, model, _):
        stage, seen = model.module.train(), []
        x = torch.empty(ROWS * LENGTH, 1, 256, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        rows = describe_rows(None, ROWS, LENGTH, stage.attention_kernel, torch.device("cuda"))
        for _ in range(2):
            with StepTrace() as trace:
                output = stage.layers["0"](x, rows)
            seen.append((trace.live_bytes, trace.peak_bytes, trace.work.operators))
            del output
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "overrides",
    [("data.format=segment-pair",), ("parallel.recompute=full",), ("parallel.pipeline=2", "cluster.processes_per_node=2")],
    ids=["pairs", "recomputed", "two-stages"],
)
def test_compiled_layers_are_planned_for_every_kind_of_run(tmp_path, overrides):
    config = configured(tmp_path, *overrides)
    eager = dataclasses.replace(config, model=dataclasses.replace(config.model, compile=False))
    records = [simulate_step(one, one.cluster.num_processes, 0) for one in (eager, config)]
    assert records[1].micro_batches.flops == pytest.approx(records[0].micro_batches.flops, rel=1e-9)
    assert len(records[1].micro_batches.operators) < len(records[0].micro_batches.operators)


def test_only_a_whole_layer_on_a_gpu_is_compiled(tmp_path):
    cuda, cpu = SimulatedDevice.of("cuda"), SimulatedDevice.of("cpu")
    assert compiles_layers(configured(tmp_path), cuda) and not compiles_layers(configured(tmp_path), cpu)
    assert not compiles_layers(configured(tmp_path, "model.compile=false"), cuda)
    heads_of_20 = configured(tmp_path, "model.hidden_size=80", "model.ffn_hidden_size=160")  # no variable-length kernel takes them
    assert not compiles_layers(heads_of_20, cuda) and simulate_step(heads_of_20, 1, 0).activation_bytes > 0
    assert not compiles_layers(configured(tmp_path, "parallel.tensor=2", "cluster.processes_per_node=2"), cuda)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile on the CPU needs g++")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_keeps_what_inductor_keeps(tmp_path, precision):
    """torch 2.13's inductor on the CPU, dropout 0.1: within 1% (attention's sums are kept once more for segments of padding)."""
    config = configured(tmp_path, f"precision={precision}")
    with simulated_process(config, 1, 0) as (_, model, _):
        stage = model.module.train()
        x = torch.empty(ROWS * LENGTH, 1, 256, dtype=stage.layers["0"].ffn.up.weight.dtype, device="cuda").requires_grad_()
        predicted = kept_bytes(stage.layers["0"], x, describe_rows(None, ROWS, LENGTH, stage.attention_kernel, torch.device("cuda")))
    dynamo.reset()
    with one_process_mesh() as mesh:
        stage = build_model(dataclasses.replace(config.model, compile=True), ParallelConfig(), mesh, precision, seed=1).train()
        x = torch.randn(ROWS * LENGTH, 1, 256, dtype=stage.layers["0"].ffn.up.weight.dtype, requires_grad=True)
        kept = kept_bytes(stage.layers["0"], x, describe_rows(None, ROWS, LENGTH, SDPA, torch.device("cpu")))
    assert predicted == pytest.approx(kept, rel=0.01)
