"""An update is few operators and one wait for the device, however many tensors a model has."""

import pytest

from robustbert.config import ModelConfig, OptimConfig
from robustbert.job import Job
from robustbert.parallel import unit_gradients
from robustbert.parallel.pipeline import forward_backward
from tests.optim.operators import StepCount
from tests.parallel.small_training import SEQUENCE_LENGTH, VOCAB_SIZE, Layout, Recipe, batches_of_step, opened

BASE = ModelConfig(  # roberta-base's tensors; what they are made of changes no count
    num_layers=12,
    hidden_size=48,
    ffn_hidden_size=192,
    num_attention_heads=12,
    vocab_size=VOCAB_SIZE,
    max_sequence_length=SEQUENCE_LENGTH,
    dropout=0.0,
    attention_dropout=0.0,
)
NUM_TENSORS = 153
_OF_GRADIENTS = ("add_", "_foreach_copy_", "_foreach_add_")


def count_a_step(precision: str, distributed_optimizer: bool, optimizer: str = "adam") -> StepCount:
    """The second step, of two micro-batches: first the moments are made."""
    layout = Layout(distributed_optimizer=distributed_optimizer)
    recipe = Recipe(model=BASE, precision=precision, optim=OptimConfig(name=optimizer, lr=1e-3, warmup_steps=5, clip_grad=1.0))
    with opened(Job(), layout, recipe) as (mesh, model, optimizer):
        assert len(list(model.parameters())) == NUM_TENSORS
        finalize = model.config.finalize_model_grads_func

        def finalize_counted(*args, **kwargs):
            count.phase = "finalize"
            finalize(*args, **kwargs)
            count.phase = "forward and backward"

        model.config.finalize_model_grads_func = finalize_counted
        for step in range(2):
            count = StepCount()
            with count.counting():
                count.phase = "clear"
                model.zero_grad_buffer()
                optimizer.zero_grad()
                count.phase = "forward and backward"
                forward_backward(model, batches_of_step(step)[:2], mesh)
                count.phase = "update"
                assert optimizer.step(step).applied
    return count


@pytest.mark.parametrize("distributed_optimizer", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_an_update_has_few_operators_and_one_wait(precision, distributed_optimizer):
    count = count_a_step(precision, distributed_optimizer)
    report(count)
    assert count.operators["clear"].total() == 0
    assert count.operators["finalize"].total() <= 1
    assert count.operators["update"].total() <= 24
    assert count.waits["update"].total() == 1
    assert count.waits["finalize"].total() == count.waits["clear"].total() == 0


def test_gradients_of_a_layer_are_accumulated_together(monkeypatch):
    """14 units. First a copy each; then the large matrices by themselves (4 a layer), the rest of a unit by a copy and an addition."""
    monkeypatch.setattr(unit_gradients, "_SMALL_NUMEL", 1000)
    count = count_a_step("bf16", True).operators["forward and backward"]
    assert count["_foreach_copy_"] == 2 * 14 and count["_foreach_add_"] == 14
    assert count["add_"] == 12 * 4 + 2 + 2  # the embedding, the head's dense matrix; and two sums of counts


def test_lamb_waits_once():
    assert count_a_step("fp16", True, "lamb").waits["update"].total() == 1


def report(count: StepCount) -> None:
    for phase in ("clear", "finalize", "update"):
        print(f"{phase}: {count.operators[phase].total()} operators {dict(count.operators[phase])}, waits {dict(count.waits[phase])}")
    of_gradients = {name: count.operators["forward and backward"][name] for name in _OF_GRADIENTS}
    print(f"forward and backward: {count.operators['forward and backward'].total()}, of gradients {of_gradients}")


if __name__ == "__main__":
    for precision in ("fp32", "bf16", "fp16"):
        for distributed_optimizer in (True, False):
            print(f"== {precision}, distributed optimizer {distributed_optimizer}")
            report(count_a_step(precision, distributed_optimizer))
