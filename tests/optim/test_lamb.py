"""LAMB: the published algorithm, and the same weights in every layout."""

import dataclasses

import numpy as np
import pytest
import torch

from robustbert.config import OptimConfig
from robustbert.job import Job
from robustbert.optim.fused_lamb import FusedLamb
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import Layout, Recipe, train

LAMB = Recipe(optim=OptimConfig(name="lamb", lr=2e-2, warmup_steps=5, weight_decay=0.1, clip_grad=1.0))
LAYOUTS = {
    "tp2": Layout(tensor=2, distributed_optimizer=False),
    "pp2": Layout(pipeline=2),
    "dp2": Layout(data=2, distributed_optimizer=False),
    "dp4-distributed-optimizer": Layout(data=4),
    "tp2-dp2-sequence-parallel": Layout(tensor=2, data=2, sequence=True),
    "tp2-pp2-dp2": Layout(tensor=2, pipeline=2, data=2),
}


def lamb_as_published(weights, gradients, lr, betas, eps, decays):
    """You et al., 2020, algorithm 2, tensor by tensor in float64; without decay and trust ratio where decays is 0."""
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    for step, of_step in enumerate(gradients, 1):
        for i, gradient in enumerate(of_step):
            first, second = moments[i]
            first, second = betas[0] * first + (1 - betas[0]) * gradient, betas[1] * second + (1 - betas[1]) * gradient**2
            moments[i] = first, second
            update = first / (1 - betas[0] ** step) / (np.sqrt(second / (1 - betas[1] ** step)) + eps) + decays[i] * weights[i]
            norms = np.linalg.norm(weights[i]), np.linalg.norm(update)
            ratio = norms[0] / norms[1] if decays[i] and all(norms) else 1.0
            weights[i] = weights[i] - lr * ratio * update
    return weights


def test_twelve_steps_are_those_of_the_published_algorithm():
    generator = torch.Generator().manual_seed(1)
    shapes, decays = ((6, 5), (5,), (4, 4), (3, 7)), (0.1, 0.0, 0.1, 0.1)
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    start[2].zero_()  # its norm is 0: the ratio is 1
    gradients = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(12)]
    weights = [torch.nn.Parameter(tensor.clone()) for tensor in start]
    groups = [
        {"params": [w for w, decay in zip(weights, decays) if decay], "weight_decay": 0.1, "wd_mult": 1.0},
        {"params": [weights[1]], "weight_decay": 0.0, "wd_mult": 0.0},
    ]
    optimizer = FusedLamb(groups, lr=0.05, betas=(0.9, 0.98), eps=1e-6)
    for of_step in gradients:
        for weight, gradient in zip(weights, of_step):
            weight.grad = gradient.clone()
        optimizer.step()
    expected = lamb_as_published(
        [tensor.double().numpy() for tensor in start],
        [[gradient.double().numpy() for gradient in of_step] for of_step in gradients],
        *(0.05, (0.9, 0.98), 1e-6, decays),
    )
    for weight, right in zip(weights, expected):
        assert np.abs(weight.detach().numpy() - right).max() < 2e-6


@pytest.fixture(scope="module")
def one_process():
    return train(Job(), Layout(distributed_optimizer=False), LAMB)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if LAYOUTS[n].num_ranks >= 4 else []) for n in LAYOUTS])
def test_twenty_steps_equal_the_one_process_run(name, one_process):
    layout = LAYOUTS[name]
    histories = run_on_ranks(train, layout.num_ranks, layout, LAMB, timeout_s=240)
    assert all(history == histories[0] for history in histories)
    worst_loss = max(abs(a - b) / b for (a, _), (b, _) in zip(histories[0], one_process))
    print(f"{name}: largest relative difference of loss {worst_loss:.1e}")
    assert worst_loss < 1e-5


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_follows_fp32(precision, one_process):
    history = run_on_ranks(train, 2, Layout(data=2), dataclasses.replace(LAMB, precision=precision))[0]
    assert max(abs(a - b) / b for (a, _), (b, _) in zip(history, one_process)) < 0.01


def test_norms_of_large_tensors_keep_their_digits():
    """A sum of millions of squares in fp32 would depend on how a tensor is cut."""
    weight = torch.nn.Parameter(torch.full((3_000_000,), 0.1))
    whole = FusedLamb([weight]).whole_tensors.norms([weight])
    assert whole.item() == pytest.approx(float(np.float32(0.1)) * 3_000_000**0.5, rel=1e-9)


def test_it_is_not_adam(one_process):
    adam = train(Job(), Layout(), dataclasses.replace(LAMB, optim=dataclasses.replace(LAMB.optim, name="adam")))
    assert adam[0][0] == one_process[0][0] and abs(adam[-1][0] - one_process[-1][0]) > 1e-3
