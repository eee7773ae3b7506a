"""The counts of a training step: complete, consistent with one another and with the configuration, and within their bounds."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.counting.graphs import Graphs, count_graphs, describe_graphs
from benchmarks.counting.masks import count_masks, describe_masks
from benchmarks.counting.step import Event, count_step, describe_step
from benchmarks.counting.training_step import PHASES, BatchFacts, load_run, open_batches, prepare
from benchmarks.step_counts import main
from robustbert.plan.simulated_cuda import ASYNCHRONOUS_COPY, BLOCKING_COPY, HOST_WAITS, READ

# ---- The bound on host waits of a step of one micro-batch, and one more for each of the model's tensors. Tighten to 2 and 0. ----
MOST_WAITS = 17
MOST_WAITS_PER_TENSOR = 1
# -------------------------------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[2]
ROWS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """(text, folder of the prepared text): the project's own files."""
    folder = tmp_path_factory.mktemp("counts")
    text = folder / "prose.txt"
    text.write_text("\n\n".join(path.read_text() for path in sorted((ROOT / "robustbert").rglob("*.py"))))
    return str(text), folder / "data"


def counted(data, tmp_path, precision="bf16", rows=ROWS, micro_batches=1, model="small"):
    text, folder = data
    config = load_run(model, precision, rows, micro_batches, text)
    batches = open_batches(config, prepare(config, folder))
    try:
        return count_step(config, batches, tmp_path)
    finally:
        batches.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_host_waits_of_a_step_are_bounded(data, tmp_path, precision):
    counts = counted(data, tmp_path, precision)
    assert counts.num_waits == sum(times for event, times in counts.events.items() if event.kind in HOST_WAITS)
    assert counts.num_waits <= MOST_WAITS + MOST_WAITS_PER_TENSOR * counts.num_tensors, describe_step(counts)
    for event in counts.events:
        file, _, line = event.place.rpartition(":")
        assert file.startswith(("robustbert/", "megatron/")) and line.isdigit(), event
        assert event.phase in PHASES, event


def test_every_phase_has_its_operators(data, tmp_path):
    counts = counted(data, tmp_path)
    assert set(counts.operators) <= set(PHASES)
    products = counts.operators["forward and backward"]
    # A layer has four products, the head two: each forward and twice backward; attention has an operator of its own.
    assert products["mm"] + products["addmm"] + products["bmm"] >= 3 * (2 * 4 + 2)
    assert any("attention" in name for name in products)
    assert not any("softmax" == name.strip("_") for name in products)
    for phase in ("zeroing", "forward and backward", "updating the weights"):
        assert counts.num_operators(phase) > 0 and counts.moved_bytes[phase].total() > 0, phase
    # Gradients are zeroed once, weights and moments read and written.
    assert counts.moved_bytes["zeroing"].total() >= 4 * counts.num_parameters
    assert counts.moved_bytes["updating the weights"].total() >= 4 * 6 * counts.num_parameters


def test_micro_batches_repeat_the_passes_and_not_the_update(data, tmp_path):
    one, two = counted(data, tmp_path / "one"), counted(data, tmp_path / "two", micro_batches=2)
    assert one.num_operators("updating the weights") == two.num_operators("updating the weights")
    ratio = two.num_operators("forward and backward") / one.num_operators("forward and backward")
    assert 1.8 < ratio <= 2
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


def test_graph_breaks_of_a_layer_are_counted_with_their_reasons(data):
    graphs = count_graphs(load_run("small", "bf16", ROWS, 1))
    assert graphs.num_graphs == graphs.num_breaks + 1 and graphs.num_graphs >= 1
    assert bool(graphs.reasons) == bool(graphs.num_breaks)
    lines = describe_graphs(dataclasses.replace(graphs, num_breaks=1, reasons=(("why", "robustbert/model/layer.py:1"),)))
    assert lines[1:] == ["  why | robustbert/model/layer.py:1"]
    assert Graphs(1, 0, ()) == dataclasses.replace(graphs, num_graphs=1, num_breaks=0, reasons=())


def test_masks_are_those_of_the_runs_micro_batches(data):
    text, folder = data
    config = load_run("small", "bf16", ROWS, 1, text)
    masks = count_masks(config, prepare(config, folder), num_micro_batches=6)
    assert masks.num_micro_batches == 6 == len(masks.masked_counts)
    assert 0 <= masks.num_with_mask <= 6 and 0 <= masks.padding < 0.5 and 0 <= masks.full_rows <= 1
    assert (masks.num_with_mask == 0) <= (masks.padding == 0)
    assert all(0 < number <= ROWS * 512 * 0.3 for number in masks.masked_counts)
    assert f"of {masks.num_micro_batches}" in describe_masks(masks)[0]
    assert f"{masks.num_distinct_counts} different" in describe_masks(masks)[1]


def test_what_is_said_of_masks_follows_from_the_batches(monkeypatch):
    from benchmarks.counting import masks as module

    class Batches:
        def micro_batches(self, step):
            return [BatchFacts(step % 2 == 0, 4, 1 + step, 100, 90, 10 + step)]

        def close(self):
            pass

    monkeypatch.setattr(module, "open_batches", lambda config, prepared: Batches())
    monkeypatch.setattr(module, "describe_batch", lambda facts: facts)
    masks = count_masks(None, None, num_micro_batches=3)
    assert (masks.num_with_mask, masks.padding, masks.full_rows) == (2, pytest.approx(0.1), pytest.approx(0.5))
    assert masks.masked_counts == (10, 11, 12) and masks.num_distinct_counts == 3


def test_the_command_prints_and_records(data, tmp_path, capsys):
    text, folder = data
    record = tmp_path / "record.md"
    words = ["--model", "small", "--micro-batch", "2", "--text", text, "--data", str(folder), "--record", str(record)]
    main(words)
    printed = capsys.readouterr().out
    for part in ("host waits a step: ", "forward and backward: ", "allocated by the loss: ", "graphs, ", "padding mask: "):
        assert part in printed and part in record.read_text()
