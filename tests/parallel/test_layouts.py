"""Every layout computes what one process computes."""

import dataclasses

import numpy as np
import pytest

from robustbert.job import Job
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, PAIRS, Layout, Recipe, opened, train

LAYOUTS = {
    "tp2": Layout(tensor=2, distributed_optimizer=False),
    "pp2": Layout(pipeline=2, distributed_optimizer=False),
    "dp2": Layout(data=2, distributed_optimizer=False),
    "dp2-distributed-optimizer": Layout(data=2),
    "tp2-pp2": Layout(tensor=2, pipeline=2),
    "tp2-dp2-sequence-parallel": Layout(tensor=2, data=2, sequence=True),
    "tp2-pp2-dp2": Layout(tensor=2, pipeline=2, data=2),
}
WITH_DROPOUT = Recipe(model=dataclasses.replace(MODEL, dropout=0.1, attention_dropout=0.1), num_steps=6)


@pytest.fixture(scope="module")
def one_process():
    return train(Job(), Layout(distributed_optimizer=False), Recipe())


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if LAYOUTS[n].num_ranks == 8 else []) for n in LAYOUTS])
def test_twenty_steps_equal_the_one_process_run(name, one_process):
    layout = LAYOUTS[name]
    histories = run_on_ranks(train, layout.num_ranks, layout, Recipe(), timeout_s=240)
    assert all(history == histories[0] for history in histories)
    worst_loss = max(abs(a - b) / b for (a, _), (b, _) in zip(histories[0], one_process))
    worst_norm = max(abs(a - b) / b for (_, a), (_, b) in zip(histories[0], one_process))
    print(f"{name}: largest relative difference of loss {worst_loss:.1e}, of gradient norm {worst_norm:.1e}")
    assert worst_loss < 1e-5 and worst_norm < 1e-4


@pytest.fixture(scope="module")
def one_process_with_pairs():
    return train(Job(), Layout(distributed_optimizer=False), PAIRS)


@pytest.mark.parametrize("name", ["tp2", "pp2", "dp2-distributed-optimizer", *(pytest.param(n, marks=pytest.mark.slow) for n in ("tp2-dp2-sequence-parallel", "tp2-pp2"))])
def test_pairs_in_micro_batches_of_different_widths_equal_the_one_process_run(name, one_process_with_pairs):
    layout = LAYOUTS[name]
    histories = run_on_ranks(train, layout.num_ranks, layout, PAIRS, timeout_s=240)
    worst_loss = max(abs(a - b) / b for (a, _), (b, _) in zip(histories[0], one_process_with_pairs))
    worst_norm = max(abs(a - b) / b for (_, a), (_, b) in zip(histories[0], one_process_with_pairs))
    print(f"{name}: largest relative difference of loss {worst_loss:.1e}, of gradient norm {worst_norm:.1e}")
    assert worst_loss < 1e-5 and worst_norm < 1e-4


def check_initial_weights(job, layout):
    with opened(job, layout, Recipe()) as (mesh, model, _):
        return {
            name: (shard.detach().numpy().copy(), getattr(shard, "partition_dim", -1), mesh.tp_rank)
            for name, shard in model.module.named_shards()
        }


def test_initial_weights_do_not_depend_on_the_layout():
    whole = check_initial_weights(Job(), Layout())
    layout = Layout(tensor=2, pipeline=2)
    seen = set()
    for rank in run_on_ranks(check_initial_weights, layout.num_ranks, layout):
        for name, (shard, dim, tp_rank) in rank.items():
            expected = whole[name][0] if dim < 0 else np.split(whole[name][0], 2, axis=dim)[tp_rank]
            assert np.array_equal(shard, expected), name
            seen.add(name)
    assert seen == set(whole)


def test_dropout_does_not_depend_on_the_data_parallel_size():
    alone = train(Job(), Layout(), WITH_DROPOUT)
    together = run_on_ranks(train, 2, Layout(data=2), WITH_DROPOUT)[0]
    assert max(abs(a - b) / b for (a, _), (b, _) in zip(together, alone)) < 1e-6
    without = train(Job(), Layout(), dataclasses.replace(WITH_DROPOUT, model=MODEL))
    assert abs(without[0][0] - alone[0][0]) > 1e-4


@pytest.mark.slow
def test_recomputation_changes_nothing_with_dropout_and_sequence_parallelism():
    layout = Layout(tensor=2, sequence=True)
    kept = run_on_ranks(train, 2, layout, WITH_DROPOUT)[0]
    recomputed = run_on_ranks(train, 2, dataclasses.replace(layout, recompute="full"), WITH_DROPOUT)[0]
    assert recomputed == kept


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_fp32(precision, one_process):
    history = run_on_ranks(train, 2, Layout(data=2), Recipe(precision=precision))[0]
    assert max(abs(a - b) / b for (a, _), (b, _) in zip(history, one_process)) < 0.01


def check_overflow(job, layout, optimizer):
    """Inject an overflow into the gradients of step 2; returns per step (applied, scale, weights' sum)."""
    from tests.parallel.small_training import run_step

    recipe = Recipe(precision="fp16", optim=dataclasses.replace(Recipe().optim, name=optimizer))
    with opened(job, layout, recipe) as (mesh, model, optimizer):
        trace = []
        finalize = model.module.config.finalize_model_grads_func

        def overflow(models, *args, **kwargs):
            finalize(models, *args, **kwargs)
            if len(trace) == 2 and mesh.rank == 0:
                next(iter(model.module.parameters())).main_grad.view(-1)[0] = float("inf")

        model.module.config.finalize_model_grads_func = overflow
        for step in range(5):
            before = [parameter.detach().clone() for parameter in model.module.parameters()]
            _, update = run_step(mesh, model, optimizer, recipe, step)
            model.complete_weights()
            changed = any(not a.equal(b) for a, b in zip(before, model.module.parameters()))
            trace.append((update.applied, update.loss_scale, changed))
        return trace


_DP2, _TP2 = Layout(data=2), Layout(tensor=2, distributed_optimizer=False)


@pytest.mark.parametrize("layout, optimizer", [(_DP2, "adam"), (_TP2, "adam"), (_DP2, "lamb")], ids=["dp2", "tp2", "dp2-lamb"])
def test_an_overflow_skips_the_step_and_halves_the_scale(layout, optimizer):
    for trace in run_on_ranks(check_overflow, 2, layout, optimizer):
        assert [applied for applied, _, _ in trace] == [True, True, False, True, True]
        assert [changed for _, _, changed in trace] == [True, True, False, True, True]
        scales = [scale for _, scale, _ in trace]
        assert scales[:3] == [scales[0]] * 3 and scales[3:] == [scales[0] / 2] * 2
