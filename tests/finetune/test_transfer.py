"""A batch is the same when it comes out of one packed copy; outputs come back whole."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robustbert.finetune.batches import collate
from robustbert.finetune.task import Encoded, Item
from robustbert.finetune.tasks import build_task
from robustbert.finetune.tasks.winograd.task import Blank
from robustbert.finetune.transfer import Outputs, on_device, pack, unpack
from robustbert.pinned_copies import PinnedCopies

CPU = torch.device("cpu")
TARGETS = {"mrpc": 1, "sts-b": 2.5, "squad1.1": (1, 2, 0.0), "squad2.0": (0, 0, 1.0), "race": 3, "qnli-ranking": 0, "wnli-ranking": True}


def some_items(name, with_types):
    """Two items of two sequences each, of 3 to 6 tokens."""
    items = []
    for number in range(2):
        lengths = (3 + number, 5 + number)
        sequences = [Encoded(np.arange(n, dtype=np.int32) + 7, np.arange(n, dtype=np.int32) % 2 if with_types else None) for n in lengths]
        blanks = (Blank(np.array([1, 2]), np.array([8, 9], np.int32)), Blank(np.array([3]), np.array([10], np.int32)))
        items.append(Item(number, tuple(sequences), TARGETS[name], blanks if name == "wnli-ranking" else None))
    return items


@pytest.mark.parametrize("with_types", [False, True])
@pytest.mark.parametrize("name", TARGETS)
def test_a_packed_batch_is_the_batch(name, with_types):
    batch = collate(build_task(name), some_items(name, with_types), pad_id=1, training=True)
    assert ("token_type_ids" in batch.inputs) == with_types and batch.inputs["attention_mask"].sum(1).tolist() == [3, 5, 4, 6]
    packed = pack(batch)
    assert packed.dtype == torch.uint8 and packed.dim() == 1
    [moved] = on_device([batch], CPU, packs=True)
    for got in (unpack(packed, batch), moved):
        assert got.items is batch.items
        for tensors, expected in ((got.inputs, batch.inputs), (got.arrays, batch.arrays)):
            assert list(tensors) == list(expected)
            for key, tensor in tensors.items():
                assert tensor.dtype == expected[key].dtype and torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize(
    "name, dtypes",
    [
        ("mrpc", {"targets": torch.int64}),
        ("sts-b", {"targets": torch.float32}),
        ("squad2.0", {"first": torch.int64, "last": torch.int64, "is_without": torch.float32}),
        ("race", {"targets": torch.int64}),
    ],
)
def test_targets_travel_in_training_only(name, dtypes):
    batch = collate(build_task(name), some_items(name, False), pad_id=1, training=True)
    assert {key: tensor.dtype for key, tensor in batch.arrays.items()} == dtypes
    unlabelled = [Item(item.example, item.sequences) for item in batch.items]
    assert collate(build_task(name), unlabelled, pad_id=1).arrays == {}


def test_the_blanks_of_winograd_are_found_in_their_rows():
    arrays = collate(build_task("wnli-ranking"), some_items("wnli-ranking", False), pad_id=1).arrays
    assert arrays["rows"].tolist() == [0, 0, 1, 2, 2, 3] and arrays["positions"].tolist() == [1, 2, 3] * 2
    assert arrays["ids"].tolist() == [8, 9, 10] * 2 and arrays["ids"].dtype == torch.int64


def test_each_batch_is_sent_before_the_one_ahead_of_it_is_handed_out():
    events = []

    def numbers():
        for number in range(3):
            yield number

    def packing(number, pin):
        events.append(f"send {number}")
        assert not pin
        return torch.tensor([number])

    for number in PinnedCopies(CPU, packing, lambda packed, number: packed.item())(numbers()):
        events.append(f"take {number}")
    assert events == ["send 0", "send 1", "take 0", "send 2", "take 1", "take 2"]
    assert list(PinnedCopies(CPU, packing, lambda packed, number: packed)([])) == []


class FakeCuda:
    """Notes in what order copies and waits are asked for, as CUDA's streams would be."""

    def __init__(self, monkeypatch):
        self.calls, self.inside = [], ["compute"]
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.stream("copy"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.stream("compute"))
        monkeypatch.setattr(torch.cuda, "stream", self.within)

    def stream(self, name):
        return SimpleNamespace(name=name, record_event=lambda: f"event of {name}", wait_event=lambda event: self.calls.append(f"{name} waits for {event}"))

    @contextlib.contextmanager
    def within(self, stream):
        self.inside.append(stream.name)
        yield
        self.inside.pop()

    def packed(self, number, pin):
        def to(device, non_blocking):
            self.calls.append(f"{self.inside[-1]} sends {number}, pinned {pin}, asynchronous {non_blocking}")
            return SimpleNamespace(record_stream=lambda stream: self.calls.append(f"{number} is kept for {stream.name}"))

        return SimpleNamespace(to=to)


def test_on_cuda_the_computing_stream_waits_and_the_host_does_not(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    for number in PinnedCopies(torch.device("cuda", 0), cuda.packed, lambda packed, number: number)([0, 1]):
        cuda.calls.append(f"take {number}")
    arrival = "compute waits for event of copy"
    assert cuda.calls == [
        "copy sends 0, pinned True, asynchronous True",
        "copy sends 1, pinned True, asynchronous True",
        *(arrival, "0 is kept for compute", "take 0"),
        *(arrival, "1 is kept for compute", "take 1"),
    ]


def test_outputs_of_any_shapes_come_back_by_one_copy():
    outputs = [torch.randn(3), torch.randn(2, 4, dtype=torch.float64).to(torch.bfloat16).float(), torch.randn(()), torch.randn(1)]
    for got, output in zip(Outputs(outputs).arrays(), outputs, strict=True):
        assert got.dtype == np.float32 and got.shape == tuple(output.shape) and np.array_equal(got, output.numpy())
