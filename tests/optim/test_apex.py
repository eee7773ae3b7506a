"""Apex's classes take the place of ours where they give the same weights; stand-ins of its interface, as Apex needs CUDA."""

import functools

import pytest
import torch

from robustbert.config import OptimConfig
from robustbert.device import Device
from robustbert.diagnosis.measures import compare_apex, judge_optimizer, optimizers_differ_by
from robustbert.job import Job
from robustbert.optim import apex, optimizer_class
from robustbert.optim.fused_lamb import FusedLamb
from robustbert.testing import run_on_ranks
from tests.optim.apex_like import ApexLikeLamb
from tests.parallel.small_training import Layout, Recipe, opened, train

LAMB = Recipe(optim=OptimConfig(name="lamb", lr=2e-2, warmup_steps=5, weight_decay=0.1, clip_grad=1.0), num_steps=8)
WITHOUT_DECAY = Recipe(optim=OptimConfig(name="lamb", lr=2e-2, warmup_steps=5, weight_decay=0.0))


def test_apex_lamb_without_its_clipping_is_ours():
    device = Device.detect(Job())
    assert optimizers_differ_by(apex.without_clipping(ApexLikeLamb), FusedLamb, device) < 1e-5
    assert judge_optimizer("FusedLAMB", apex.without_clipping(ApexLikeLamb), FusedLamb, device)["fault"] is None


@pytest.mark.parametrize("options", [{"use_nvlamb": True}, {"max_grad_norm": 1.0}])
def test_its_other_rules_are_told_apart(options):
    wrong = functools.partial(ApexLikeLamb, **({"max_grad_norm": float("inf")} | options))
    difference = optimizers_differ_by(wrong, FusedLamb, Device.detect(Job()))
    assert difference > 1e-3


def test_nothing_is_compared_without_apex():
    assert apex.apex_lamb() is None and apex.apex_adam() is None
    assert compare_apex(apex.pairs_to_compare(), Device.detect(Job())) == {"text": "Apex is not there, torch's kernels are used", "fault": None}


def check_chosen_class(job, layout, recipe):
    """The class that a job's optimizer is of where Apex's LAMB and CUDA seem to be there."""
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(optimizer_class, "apex_lamb", lambda: apex.without_clipping(ApexLikeLamb))
        monkey.setattr(optimizer_class, "apex_is_usable", lambda: True)
        with opened(job, layout, recipe) as (_, _, optimizer):
            return type(optimizer.megatron.optimizer).__name__


@pytest.mark.parametrize("layout, recipe, expected", [
    (Layout(), LAMB, "ApexLamb"),
    (Layout(data=2, distributed_optimizer=False), LAMB, "ApexLamb"),
    (Layout(data=2), LAMB, "FusedLamb"),  # parts of tensors
    (Layout(tensor=2, distributed_optimizer=False), LAMB, "FusedLamb"),
    (Layout(), WITHOUT_DECAY, "FusedLamb"),  # Apex's would leave out the trust ratio
])
def test_apex_lamb_is_taken_only_where_it_is_right(layout, recipe, expected):
    assert set(run_on_ranks(check_chosen_class, layout.num_ranks, layout, recipe)) == {expected}


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_training_with_it_follows_ours(precision, monkeypatch):
    """The way of an optimizer that does not divide by itself: gradients are divided before it."""
    recipe = Recipe(optim=LAMB.optim, precision=precision, num_steps=8)
    ours = train(Job(), Layout(), recipe)
    monkeypatch.setattr(optimizer_class, "apex_lamb", lambda: apex.without_clipping(ApexLikeLamb))
    monkeypatch.setattr(optimizer_class, "apex_is_usable", lambda: True)
    theirs = train(Job(), Layout(), recipe)
    assert max(abs(a - b) / b for (a, _), (b, _) in zip(theirs, ours)) < 1e-5


def test_training_with_an_adam_that_does_not_divide_follows_ours(monkeypatch):
    """As with Apex's FusedAdam, of whose interface AdamW is here."""

    class StandIn(torch.optim.AdamW):
        def __init__(self, params, adam_w_mode=True, **options):
            super().__init__(params, **options)

        def step(self, closure=None):
            for group in self.param_groups:
                group["step"] = group.get("step", 0) + 1
            return super().step(closure)

    recipe = Recipe(num_steps=8)
    ours = train(Job(), Layout(distributed_optimizer=False), recipe)
    monkeypatch.setattr(optimizer_class, "_adam_that_megatron_found", lambda: StandIn)
    theirs = train(Job(), Layout(distributed_optimizer=False), recipe)
    assert max(abs(a - b) / b for (a, _), (b, _) in zip(theirs, ours)) < 1e-6
