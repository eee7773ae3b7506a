"""The operations counted for every attention operator are the products of its formula, whatever its layout."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from robustbert.kernels import attention as cpu_kernel
from robustbert.plan.trace import StepTrace

aten = torch.ops.aten
ROWS, HEADS, LENGTH, SIZE = 3, 4, 128, 64
PRODUCT = 2 * ROWS * HEADS * LENGTH * LENGTH * SIZE  # of query and key, or of scores and value


def dense():
    return torch.randn(ROWS, HEADS, LENGTH, SIZE, dtype=torch.bfloat16, requires_grad=True)


def rows_first():
    return torch.randn(ROWS, LENGTH, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)


def tokens():
    return torch.randn(ROWS * LENGTH, HEADS, SIZE, dtype=torch.bfloat16, requires_grad=True)


def packed():
    return torch.randn(ROWS * LENGTH, HEADS, 3, SIZE, dtype=torch.bfloat16, requires_grad=True)


def starts():
    """Of each row's tokens and its padding."""
    return torch.zeros(2 * ROWS + 1, dtype=torch.int32)


def flash(q, cumulative, longest):
    return aten._flash_attention_forward(q, q, q, cumulative, cumulative, longest, longest, 0.1, False, False)


def efficient(q, cumulative, longest):
    return aten._efficient_attention_forward(q, q, q, None, cumulative, cumulative, longest, longest, 0.1, 0, True)


CALLS = {
    "cpu": lambda: aten._scaled_dot_product_flash_attention_for_cpu(*3 * [dense()]),
    "flash": lambda: aten._scaled_dot_product_flash_attention(*3 * [dense()], 0.1),
    "efficient": lambda: aten._scaled_dot_product_efficient_attention(*3 * [dense()], None, True, 0.1),
    "cudnn": lambda: aten._scaled_dot_product_cudnn_attention(*3 * [dense()], None, True, 0.1),
    "flash of rows": lambda: flash(rows_first(), None, LENGTH),
    "efficient of rows": lambda: efficient(rows_first(), None, None),
    "flash of variable lengths": lambda: flash(tokens(), starts(), LENGTH),
    "this project's for CPU": lambda: (cpu_kernel.attend(packed(), None, ROWS, 0.1),),
    "efficient of variable lengths": lambda: efficient(tokens()[None], starts(), LENGTH),
}


@pytest.mark.parametrize("name", CALLS)
def test_attention_is_two_products_forward_and_five_backward(name):
    with FakeTensorMode(), StepTrace() as trace:
        output = CALLS[name]()[0]
        assert trace.work.flops == 2 * PRODUCT
        output.sum().backward()
        assert trace.work.flops == (2 + 5) * PRODUCT


@pytest.mark.parametrize("name", ["flash", "efficient", "cudnn"])
def test_dense_attention_is_counted_as_torch_counts_it(name):
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, StepTrace() as trace:
        CALLS[name]()[0].sum().backward()
    assert trace.work.flops == counter.get_total_flops() > 0


def test_attention_counts_what_its_plain_products_do():
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        torch.nn.functional.scaled_dot_product_attention(*3 * [dense()])
    assert counter.get_total_flops() == 2 * PRODUCT


def test_a_sequence_cannot_be_longer_than_all_tokens():
    with FakeTensorMode(), StepTrace() as trace:
        flash(tokens(), starts(), 10**6)
    assert trace.work.flops == 2 * PRODUCT * ROWS


def test_keys_and_values_may_have_other_sizes():
    with FakeTensorMode(), StepTrace() as trace:
        query, key = torch.empty(2, 5, 16, 32), torch.empty(2, 5, 24, 32)
        aten._scaled_dot_product_efficient_attention(query, key, torch.empty(2, 5, 24, 8), None, False)
    assert trace.work.flops == 2 * (2 * 5 * 16 * 24) * (32 + 8)
