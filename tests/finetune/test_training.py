"""A step of training: what the host reads of it, what it gives in every precision, and where it stops."""

import contextlib
import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from robustbert.device import Device
from robustbert.finetune import attention, training
from robustbert.finetune.attention import attend_in_segments
from robustbert.finetune.batches import num_items_of_step, step_micro_batches
from robustbert.finetune.models import read_tokenizer
from robustbert.finetune.replicas import Replicas
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import ModelSource
from robustbert.finetune.tasks import build_task
from robustbert.finetune.training import Training
from robustbert.finetune.transfer import on_device
from robustbert.job import Job
from tests.finetune.made_glue import write_made_glue

SETTINGS = Settings(lr=1e-3, batch_size=16, micro_batch_size=4, epochs=3, max_length=32)


@pytest.fixture(scope="module")
def glue(tmp_path_factory):
    return write_made_glue(tmp_path_factory.mktemp("glue"), num_train=40, num_dev=8)


@pytest.fixture
def build_training(glue, tiny_model):
    """build_training(settings, name) makes a Training of one process."""

    def build(settings=SETTINGS, name="mrpc"):
        task, tokenizer = build_task(name), read_tokenizer(tiny_model)
        model = task.build_model(ModelSource(tiny_model, settings.seed, settings.dropout, settings.attention_dropout))
        items = task.items(task.read(glue / task.folders[0], "train"), tokenizer, settings.max_length, True)
        return Training(task, model, items, tokenizer.pad_token_id, settings, Device.detect(Job()), Replicas(Job()))

    return build


class Count(TorchDispatchMode):
    """Counts reads of a tensor's value, which are waits on a GPU, and casts."""

    def __init__(self):
        super().__init__()
        self.reads = self.casts = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.reads += function is torch.ops.aten._local_scalar_dense.default
        self.casts += function is torch.ops.aten._to_copy.default
        return function(*args, **(kwargs or {}))


def weights_after(steps, one):
    losses = [one.take_step() for _ in range(steps)]
    return losses, [parameter.detach().clone() for parameter in one.model.parameters()]


@pytest.mark.parametrize("changes", [{}, {"clip_grad": 1.0}, {"precision": "bf16"}, {"precision": "fp16", "clip_grad": 1.0}])
def test_the_host_reads_one_number_a_step(monkeypatch, build_training, changes):
    monkeypatch.setattr(attention, "choose_kernel", lambda device, dtype, head_size: "efficient")
    monkeypatch.setattr(attention, "attend_to_segments", lambda query, key, value, *others: query + key + value)
    pytest.importorskip("transformers", minversion="5.0", reason="the mask interface for encoders came with transformers 5.0")
    one = build_training(replace(SETTINGS, **changes))
    assert attend_in_segments(one.model, torch.device("cpu"), torch.float32)
    one.take_step()  # makes the optimizer's state
    with Count() as count:
        one.take_step()
    assert count.reads == 1


def test_packed_batches_give_the_same_bits(monkeypatch, build_training):
    plain = weights_after(7, build_training())  # into the third epoch
    monkeypatch.setattr(training, "on_device", lambda batches, device: on_device(batches, device, packs=True))
    losses, weights = weights_after(7, build_training())
    assert losses == plain[0] and all(map(torch.equal, weights, plain[1]))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_are_cast_once_a_step_to_the_same_bits(monkeypatch, build_training, precision):
    settings = replace(SETTINGS, precision=precision)
    results = []
    for is_shared in (True, False):
        if not is_shared:
            monkeypatch.setattr(training, "one_cast", lambda device: contextlib.nullcontext())
        one = build_training(settings)
        with Count() as count:
            results.append((*weights_after(3, one), count.casts))
    (losses, weights, casts), (other_losses, other_weights, other_casts) = results
    assert losses == other_losses and all(map(torch.equal, weights, other_weights))
    matrices = sum(parameter.dim() > 1 for parameter in one.model.parameters())
    assert casts < other_casts - 2 * matrices  # 3 micro-batches of a step do without, as do their gradients


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_loss_that_is_not_finite_ends_training_in_its_step(monkeypatch, build_training, precision):
    one = build_training(replace(SETTINGS, precision=precision))
    one.take_step()
    losses = type(one._task).losses
    monkeypatch.setattr(type(one._task), "losses", lambda self, model, batch: losses(self, model, batch) * float("nan"))
    with pytest.raises(FinetuneError, match="the loss is nan at step 1: training has diverged"):
        one.take_step()
    assert one.step == 1  # the runner has nothing to report or to save


def test_an_overflow_of_fp16_skips_the_update_and_halves_the_scale(monkeypatch, build_training):
    one = build_training(replace(SETTINGS, precision="fp16"))
    one.take_step()
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    scale = one._scaler.get_scale()
    take = one._take_gradients
    monkeypatch.setattr(one, "_take_gradients", lambda: [gradient * float("inf") for gradient in take()])
    one.take_step()
    assert all(map(torch.equal, before, one.model.parameters())) and one._scaler.get_scale() == scale / 2


def test_a_state_of_an_unfused_optimizer_is_gone_on_from_fused(build_training):
    one = build_training()
    one.take_step()
    state = copy.deepcopy(one.state())
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = group["foreach"] = None
    other = build_training()
    other.load(state)
    assert all(group["fused"] for group in other._optimizer.param_groups)
    one.take_step(), other.take_step()
    assert all(map(torch.equal, one.model.parameters(), other.model.parameters()))


def test_a_state_is_gone_on_from_whatever_was_sent_ahead(build_training):
    one, other = build_training(), build_training()
    for _ in range(4):
        one.take_step()
    other.take_step()
    other.load(copy.deepcopy(one.state()))
    assert [other.take_step() for _ in range(3)] == [one.take_step() for _ in range(3)]


@pytest.mark.parametrize("num_items, batch_size", [(40, 16), (32, 16), (5, 8)])
def test_the_number_of_items_of_a_step_is_that_of_its_micro_batches(num_items, batch_size):
    items = [SimpleNamespace(length=3)] * num_items
    for step in range(7):
        parts = step_micro_batches(items, step, batch_size, 4, seed=1)
        assert num_items_of_step(num_items, step, batch_size) == sum(map(len, parts)) and len(parts) == -(-sum(map(len, parts)) // 4)
