"""The counts of a training step: complete, consistent with one another and with the configuration, and within their bounds."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.counting.graphs import count_graphs, describe_graphs
from benchmarks.counting.masks import count_masks, describe_masks
from benchmarks.counting.step import Event, count_step, describe_step
from benchmarks.counting.training_step import PHASES, BatchFacts, describe_batch, kernel_of, load_run, open_batches, prepare
from benchmarks.step_counts import main
from robustbert.model.attention import EFFICIENT, FLASH, SDPA
from robustbert.plan.simulated_cuda import ASYNCHRONOUS_COPY, BLOCKING_COPY, HOST_WAITS, READ

MOST_WAITS = 2  # of the host in a step, whatever the model: for the gradients' norm, and for the step's sums
ROOT = Path(__file__).resolve().parents[2]
ROWS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(text, folder of the prepared text): the project's own files."""
    folder = tmp_path_factory.mktemp("counts")
    text = folder / "prose.txt"
    text.write_text("\n\n".join(path.read_text() for path in sorted((ROOT / "robustbert").rglob("*.py"))))
    return str(text), folder / "data"


def counted(data, tmp_path, precision="bf16", rows=ROWS, micro_batches=1, model="small", num_processes=1, num_layers=None):
    text, folder = data
    config = load_run(model, precision, rows, micro_batches, text, num_processes)
    if num_layers is not None:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=num_layers))
    batches = open_batches(config, prepare(config, folder))
    try:
        return count_step(config, batches, tmp_path)
    finally:
        batches.close()


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("model", ["base", pytest.param("large", marks=pytest.mark.slow)])
def test_the_host_waits_at_most_twice_a_step(data, tmp_path, model, precision, num_processes):
    counts = counted(data, tmp_path, precision, model=model, num_processes=num_processes)
    assert counts.num_waits == sum(times for event, times in counts.events.items() if event.kind in HOST_WAITS)
    assert 1 <= counts.num_waits <= MOST_WAITS, describe_step(counts)
    assert not any(event.kind == BLOCKING_COPY for event in counts.events), describe_step(counts)
    for event in counts.events:
        file, _, line = event.place.rpartition(":")
        assert file.startswith(("robustbert/", "megatron/")) and line.isdigit(), event
        assert event.phase in PHASES, event


def test_more_tensors_and_micro_batches_are_not_waited_for(data, tmp_path):
    few = counted(data, tmp_path / "few", num_layers=1)
    many = counted(data, tmp_path / "many", num_layers=5, micro_batches=3)
    assert many.num_tensors >= few.num_tensors + 4 * 12
    assert many.num_waits == few.num_waits
    sent = [event for event in many.events if event.kind == ASYNCHRONOUS_COPY and event.place.startswith("robustbert/pinned_copies.py")]
    assert sum(many.events[event] for event in sent) == 3  # a micro-batch is one copy


def test_an_update_starts_as_many_operators_whatever_the_number_of_tensors(data, tmp_path):
    few, many = counted(data, tmp_path / "few", num_layers=1), counted(data, tmp_path / "many", num_layers=5)
    assert many.num_operators("updating the weights") == few.num_operators("updating the weights") < 30


def test_every_phase_has_its_operators(data, tmp_path):
    counts = counted(data, tmp_path)
    assert set(counts.operators) <= set(PHASES)
    products = counts.operators["forward and backward"]
    # A layer has four products, the head two: each forward and twice backward; attention has an operator of its own.
    assert products["mm"] + products["addmm"] + products["bmm"] >= 3 * (2 * 4 + 2)
    assert any("attention" in name for name in products)
    assert not any("softmax" == name.strip("_") for name in products)
    for phase in ("forward and backward", "updating the weights"):
        assert counts.num_operators(phase) > 0 and counts.moved_bytes[phase].total() > 0, phase
    # Gradients are not cleared, as the first ones are copied over what is there; weights and moments are read and written.
    assert counts.moved_bytes["zeroing"].total() < counts.num_parameters
    assert counts.moved_bytes["updating the weights"].total() >= 4 * 6 * counts.num_parameters


def test_micro_batches_repeat_the_passes_and_not_the_update(data, tmp_path):
    one, two = counted(data, tmp_path / "one"), counted(data, tmp_path / "two", micro_batches=2)
    assert one.num_operators("updating the weights") == two.num_operators("updating the weights")
    ratio = two.num_operators("forward and backward") / one.num_operators("forward and backward")
    assert 1.8 < ratio < 2.2  # the first gradients are copied by fewer kernels than later ones are added
    assert two.num_tensors == one.num_tensors and two.num_parameters == one.num_parameters


def test_more_rows_move_and_allocate_more_and_wait_as_often(data, tmp_path):
    few, many = counted(data, tmp_path / "few", rows=1), counted(data, tmp_path / "many", rows=4)
    assert many.num_waits == few.num_waits
    assert many.moved_bytes["forward and backward"].total() > few.moved_bytes["forward and backward"].total()
    assert 0 < few.loss_bytes < many.loss_bytes < many.peak_bytes
    assert many.peak_bytes > 2 * few.peak_bytes


def test_waits_and_transfers_are_told_apart_and_printed(data, tmp_path):
    counts = counted(data, tmp_path)
    asynchronous = Event("forward and backward", ASYNCHRONOUS_COPY, "robustbert/here.py:1")
    before = counts.num_waits
    counts.events[asynchronous] += 5
    assert counts.num_waits == before and not asynchronous.is_wait
    counts.events = Counter({Event("counting", READ, "robustbert/a.py:1"): 2, Event("counting", BLOCKING_COPY, "robustbert/b.py:2"): 3})
    lines = describe_step(counts)
    assert "host waits a step: 5" in lines and any(line.split() == ["3", "blocking", "copy", "counting", "robustbert/b.py:2"] for line in lines)
    assert [line for line in lines if line.startswith("allocated by the loss")]


def test_a_layer_is_one_graph(data):
    graphs = count_graphs(load_run("small", "bf16", ROWS, 1))
    assert (graphs.num_graphs, graphs.num_breaks, graphs.reasons) == (1, 0, ()), describe_graphs(graphs)
    lines = describe_graphs(dataclasses.replace(graphs, num_breaks=1, reasons=(("why", "robustbert/model/layer.py:1"),)))
    assert lines[1:] == ["  why | robustbert/model/layer.py:1"]


def test_no_micro_batch_on_a_gpu_needs_a_mask_and_all_have_one_shape(data):
    text, folder = data
    config = load_run("small", "bf16", ROWS, 1, text)
    assert kernel_of(config) == FLASH and kernel_of(dataclasses.replace(config, precision="fp32")) == EFFICIENT
    masks = count_masks(config, prepare(config, folder), num_micro_batches=6)
    assert masks.num_micro_batches == 6 == len(masks.masked_counts)
    assert masks.num_with_mask == 0 < masks.num_padded and 0 < masks.padding < 0.5 and 0 <= masks.full_rows < 1
    ((rows, length, predictions),) = masks.shapes
    assert (rows, length) == (ROWS, 512) and len(set(masks.masked_counts)) > 1
    assert max(masks.masked_counts) <= predictions == ROWS * (int(0.15 * 512) + 1)
    assert "needs a mask: 0 of 6" in describe_masks(masks)[0]
    assert f"micro-batches: 1; masked positions {min(masks.masked_counts)} to" in describe_masks(masks)[1]


def test_the_cpus_attention_needs_a_mask_where_there_is_padding(data):
    text, folder = data
    config = load_run("small", "bf16", ROWS, 1, text)
    (batch,) = open_batches(config, prepare(config, folder)).micro_batches(0)
    assert describe_batch(batch, SDPA).needs_mask == describe_batch(batch, FLASH).has_padding == (batch.attended_BS is not None)


def test_what_is_said_of_masks_follows_from_the_batches(monkeypatch):
    from benchmarks.counting import masks as module

    class Batches:
        def micro_batches(self, step):
            return [BatchFacts(True, step % 2 == 0, 4, 1 + step, 100, 90, 10 + step, (4, 25, 12 + step % 2))]

        def close(self):
            pass

    monkeypatch.setattr(module, "open_batches", lambda config, prepared: Batches())
    monkeypatch.setattr(module, "describe_batch", lambda facts, kernel: facts)
    monkeypatch.setattr(module, "kernel_of", lambda config: SDPA)
    masks = count_masks(None, None, num_micro_batches=3)
    assert (masks.num_padded, masks.num_with_mask, masks.padding, masks.full_rows) == (3, 2, pytest.approx(0.1), pytest.approx(0.5))
    assert masks.masked_counts == (10, 11, 12) and masks.shapes == ((4, 25, 12), (4, 25, 13))


def test_the_command_prints_and_records(data, tmp_path, capsys):
    text, folder = data
    record = tmp_path / "record.md"
    words = ["--model", "small", "--micro-batch", "2", "--text", text, "--data", str(folder), "--record", str(record)]
    main(words)
    printed = capsys.readouterr().out
    for part in ("host waits a step: ", "forward and backward: ", "allocated by the loss: ", "graphs, ", "needs a mask: "):
        assert part in printed and part in record.read_text()
