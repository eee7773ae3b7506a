"""Attention over rows with padding: every kernel gives the definition's result for real tokens, and shapes do not follow the padding."""

import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from robustbert.config import ParallelConfig
from robustbert.convert.whole_model import one_process_mesh
from robustbert.model import attention
from robustbert.model.attention import BLOCKED, EFFICIENT, FLASH, SDPA, attend, attend_plainly, choose_kernel, describe_rows, works
from robustbert.model.build import build_model
from tests.parallel.small_training import MODEL

B, S, A, D = 3, 16, 2, 8
LENGTHS = torch.tensor([16, 9, 1], dtype=torch.int32)
CPU = torch.device("cpu")


def test_rows_become_segments_of_real_tokens_and_of_padding():
    rows = describe_rows(LENGTHS, B, S, FLASH, CPU)
    assert rows.segments_N.tolist() == [0, 16, 16, 25, 32, 33, 48] and rows.segments_N.dtype == torch.int32
    assert rows.attended_B11S is None
    full = describe_rows(None, B, S, EFFICIENT, CPU)
    assert full.segments_N.tolist() == [0, 16, 16, 32, 32, 48, 48]


def test_masked_attention_on_the_cpu_equals_the_definition_at_real_tokens():
    torch.manual_seed(0)
    qkv = torch.randn(B * S, A, 3, D, requires_grad=True)
    real = (torch.arange(S) < LENGTHS[:, None]).flatten()
    masked = attend(qkv, describe_rows(LENGTHS, B, S, SDPA, CPU), 0.0, SDPA)
    segmented = attend_plainly(qkv, describe_rows(LENGTHS, B, S, FLASH, CPU))
    assert (masked - segmented)[real].abs().max() < 1e-6
    assert segmented.isfinite().all(), "padding attends to itself"
    upstream = torch.randn_like(masked) * real[:, None, None]
    (of_masked,) = torch.autograd.grad(masked, qkv, upstream)
    (of_segmented,) = torch.autograd.grad(segmented, qkv, upstream)
    assert (of_masked - of_segmented).abs().max() < 1e-5


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_single_row_goes_through_a_layer(dropout):
    """Its attention comes back with the heads outermost on the CPU."""
    config = dataclasses.replace(MODEL, attention_dropout=dropout)
    with one_process_mesh() as mesh:
        layer = build_model(config, ParallelConfig(), mesh, seed=1).layers["0"].train()
        x = torch.randn(S, 1, config.hidden_size, requires_grad=True)
        layer(x, describe_rows(None, 1, S, SDPA, CPU)).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kernel, dtype", [(FLASH, torch.bfloat16), (FLASH, torch.float16), (EFFICIENT, torch.float32), (EFFICIENT, torch.float16)])
def test_the_kernels_of_a_gpu_take_these_tensors_forward_and_backward(kernel, dtype):
    """On fake tensors: shapes, types, and that the operators have a backward pass in this version of torch."""
    with FakeTensorMode():
        qkv = torch.empty(B * S, A, 3, D, dtype=dtype, requires_grad=True)
        rows = describe_rows(torch.empty(B, dtype=torch.int32), B, S, kernel, CPU)
        out = attend(qkv, rows, 0.1, kernel)
        assert out.shape == (B * S, A, D) and out.dtype == dtype
        out.sum().backward()
        assert qkv.grad.shape == qkv.shape


def test_the_kernel_follows_the_device(monkeypatch):
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(attention, "works", lambda kernel, *place: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert choose_kernel(cuda, torch.float16, 64) == EFFICIENT, "V100 has no flash kernel"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert choose_kernel(cuda, torch.bfloat16, 64) == FLASH
    assert choose_kernel(cuda, torch.float32, 64) == EFFICIENT
    assert choose_kernel(cuda, torch.bfloat16, 20) == SDPA, "the kernels want multiples of 8"
    assert choose_kernel(CPU, torch.bfloat16, 64) == BLOCKED
    assert choose_kernel(CPU, torch.float16, 64) == choose_kernel(CPU, torch.float32, 20) == SDPA, "the kernel on CPU has its limits"
    monkeypatch.setattr(attention, "works", lambda kernel, *place: kernel == EFFICIENT)
    assert choose_kernel(cuda, torch.bfloat16, 64) == EFFICIENT, "a kernel that fails its test is not taken"


def test_a_kernel_works_if_it_gives_the_definitions_result_and_gradient(monkeypatch):
    monkeypatch.setattr(attention, "attend", lambda qkv, rows, dropout, kernel: attend_plainly(qkv, rows))
    assert works(FLASH, CPU, torch.bfloat16, 64)
    monkeypatch.setattr(attention, "attend", lambda qkv, rows, dropout, kernel: attend_plainly(qkv, rows) * 1.1)
    assert not works(FLASH, CPU, torch.bfloat16, 64)

    def broken(*arguments):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(attention, "attend", broken)
    assert not works(FLASH, CPU, torch.bfloat16, 64)
