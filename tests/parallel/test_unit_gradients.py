"""Grouped accumulation has the bits of clearing the buffer and adding each gradient."""

import itertools

import pytest
import torch

from robustbert.parallel import unit_gradients
from robustbert.parallel.unit_gradients import UnitGradients

SHAPES = ((40, 30), (30,), (7, 5), (5,))


def new_parameters(dtype):
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in SHAPES]
    for parameter in parameters:
        parameter.main_grad = torch.full(parameter.shape, float("nan"))  # what the step before left
    return parameters


def gradients_of(dtype, num_micro_batches):
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES] for _ in range(num_micro_batches)]


@pytest.mark.parametrize("small_numel", [0, 100, 10**6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_three_micro_batches_in_any_order_are_the_plain_sum(dtype, small_numel, monkeypatch):
    monkeypatch.setattr(unit_gradients, "_SMALL_NUMEL", small_numel)
    parameters, batches = new_parameters(dtype), gradients_of(dtype, 3)
    unit = UnitGradients(parameters)
    for _ in range(2):  # the second step begins on what the first one left
        unit.begin_step()
        counted = []
        for order, gradients in zip(itertools.permutations(range(4)), batches):
            for number in order:
                unit.arrive(parameters[number], gradients[number], lambda number=number: counted.append(number))
        unit.finish_step()
        for number, parameter in enumerate(parameters):
            plain = torch.zeros(SHAPES[number])
            for gradients in batches:
                plain.add_(gradients[number])
            assert parameter.main_grad.equal(plain)
        assert sorted(counted) == sorted(list(range(4)) * 3)


def test_a_parameter_that_is_missing_in_some_micro_batches():
    """Number 0 comes in all three, 1 in the last two, 2 in the first alone, 3 never."""
    parameters, batches = new_parameters(torch.bfloat16), gradients_of(torch.bfloat16, 3)
    unit, counted = UnitGradients(parameters), []
    came = ((0, 2), (0, 1), (1, 0))
    for numbers, gradients in zip(came, batches):
        for number in numbers:
            unit.arrive(parameters[number], gradients[number], lambda number=number: counted.append(number))
    assert 3 not in counted and len(counted) < 6  # some wait for the end
    unit.finish_step()
    assert sorted(counted) == [0, 0, 0, 1, 1, 2]
    for number, parameter in enumerate(parameters):
        plain = torch.zeros(SHAPES[number])
        for numbers, gradients in zip(came, batches):
            if number in numbers:
                plain.add_(gradients[number])
        assert parameter.main_grad.equal(plain)
