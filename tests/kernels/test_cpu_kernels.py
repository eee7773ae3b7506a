"""The kernels on CPU: equal to their definitions with the same dropout, whatever the number of threads, and not needed."""

import math
import subprocess
import threading

import pytest
import torch
import torch.nn.functional as F

from robustbert.kernels import attention, build, elementwise
from robustbert.kernels.build import load_kernels
from robustbert.model.attention import BLOCKED, SDPA, choose_kernel
from robustbert.optim import gradient_norm

pytestmark = pytest.mark.skipif(load_kernels().library is None, reason=f"no kernels here, because {load_kernels().missing}")
CPU = torch.device("cpu")
# num_rows, length, heads, head size, real tokens of each row: also lengths that are no multiple of any block
SHAPES = [(2, 64, 3, 64, None), (3, 77, 2, 32, [77, 1, 40]), (2, 200, 1, 16, [3, 200]), (1, 130, 1, 128, [129]), (1, 512, 2, 80, None)]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 0.015}


@pytest.fixture
def two_threads():
    """As set before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def attend_by_definition(qkv, num_rows, lengths, dropout, seed):
    num_tokens, heads, _, head_size = qkv.shape
    length = num_tokens // num_rows
    query, key, value = qkv.float().view(num_rows, length, heads, 3, head_size).permute(3, 0, 2, 1, 4)
    scores = query @ key.transpose(-1, -2) / math.sqrt(head_size)
    if lengths is not None:
        scores = scores.masked_fill((torch.arange(length) >= lengths[:, None])[:, None, None], -math.inf)
    weights = scores.softmax(-1)
    if dropout:
        factors = [attention.dropout_factors(dropout, seed, matrix, length, length) for matrix in range(num_rows * heads)]
        weights = weights * torch.stack(factors).view(num_rows, heads, length, length)
    return (weights @ value).transpose(1, 2).reshape(num_tokens, heads, head_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_is_its_definition_with_the_same_dropout_forward_and_backward(shape, dropout, dtype, monkeypatch):
    num_rows, length, heads, head_size, real = shape
    torch.manual_seed(0)
    seed = torch.tensor(7)
    monkeypatch.setattr(attention, "draw_seed", lambda dropout: seed)
    lengths = None if real is None else torch.tensor(real)
    qkv = torch.randn(num_rows * length, heads, 3, head_size).to(dtype).requires_grad_()
    is_real = torch.ones(num_rows, length) if real is None else (torch.arange(length) < lengths[:, None]).float()
    upstream = torch.randn(num_rows * length, heads, head_size).to(dtype) * is_real.view(-1, 1, 1).to(dtype)
    found = attention.attend(qkv, lengths, num_rows, dropout)
    (found_gradient,) = torch.autograd.grad(found, qkv, upstream)
    exact = qkv.detach().float().requires_grad_()
    expected = attend_by_definition(exact, num_rows, lengths, dropout, 7)
    (expected_gradient,) = torch.autograd.grad(expected, exact, upstream.float())
    assert found.dtype == dtype and found.isfinite().all()
    difference = ((found.float() - expected) * is_real.view(-1, 1, 1)).abs().max()
    assert difference < TOLERANCE[dtype] * expected.abs().max()
    assert (found_gradient.float() - expected_gradient).abs().max() < TOLERANCE[dtype] * expected_gradient.abs().max()


def test_scores_far_apart_are_a_maximum_and_no_overflow(monkeypatch):
    qkv = torch.zeros(64, 1, 3, 16)
    qkv[:, :, :2] = 100 * torch.eye(16).repeat(4, 1)[:, None, None]
    qkv[:, 0, 2, 0] = torch.arange(64.0)
    found = attention.attend(qkv, None, 1, 0.0)
    expected = torch.stack([torch.arange(64.0)[query % 16 :: 16].mean() for query in range(64)])
    assert torch.allclose(found[:, 0, 0], expected, atol=1e-4)


def test_dropout_keeps_its_share_and_its_expectation_over_ten_million_draws():
    draws = torch.stack([attention.dropout_factors(0.1, seed, matrix, 512, 512) for seed in range(4) for matrix in range(10)])
    count = draws.numel()
    assert count > 10**7
    sigma = math.sqrt(0.1 * 0.9 / count)
    assert abs((draws == 0).double().mean().item() - 0.1) < 3 * sigma
    assert abs(draws.double().mean().item() - 1) < 3 * sigma / 0.9
    assert set(draws.unique().tolist()) == {0.0, draws.max().item()} and abs(draws.max().item() - 1 / 0.9) < 1e-4


def test_dropout_of_other_seeds_matrices_rows_and_columns_is_unrelated():
    dropped = (attention.dropout_factors(0.5, 3, 0, 512, 512) == 0).double()
    others = [attention.dropout_factors(0.5, seed, matrix, 512, 512) for seed, matrix in ((4, 0), (3 + 2**32, 0), (3, 1))]
    pairs = [dropped.roll(1, 0), dropped.roll(1, 1), dropped.roll(16, 1), dropped.T, *[(other == 0).double() for other in others]]
    for other in pairs:
        assert abs((dropped * other).mean() - 0.25) < 4 * 0.25 / 512, "as often both as two coins"
    share_of_rows = dropped.mean(1)
    assert 0.8 < share_of_rows.std() / (0.5 / math.sqrt(512)) < 1.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_number_of_threads_changes_no_bit(dtype, two_threads):
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(5)
        qkv = torch.randn(2 * 96, 3, 3, 32).to(dtype).requires_grad_()
        x, residual = (torch.randn(2 * 96, 1, 96).to(dtype).requires_grad_() for _ in range(2))
        weight, shift, bias = (torch.randn(96).to(dtype).requires_grad_() for _ in range(3))
        torch.manual_seed(6)
        attended = attention.attend(qkv, None, 2, 0.1)
        normed = elementwise.add_and_norm(x, bias, residual, weight, shift, 1e-5, 0.1)
        activated = elementwise.bias_gelu(normed, bias)
        leaves = qkv, x, residual, weight, shift, bias
        gradients = torch.autograd.grad([attended, activated], leaves, [torch.ones_like(attended), torch.ones_like(activated)])
        results.append([attended, normed, activated, *gradients])
    assert all(torch.equal(one, two) for one, two in zip(*results))


@pytest.mark.parametrize("with_bias", [True, False])
def test_add_and_norm_and_gelu_are_torchs(with_bias):
    torch.manual_seed(0)
    x, residual, upstream = (torch.randn(70, 1, 96).requires_grad_() for _ in range(3))
    weight, shift, bias = (torch.randn(96).requires_grad_() for _ in range(3))
    with torch.no_grad():
        weight += 1
    leaves = [x, residual, weight, shift] + [bias] * with_bias
    given = bias if with_bias else None
    plain = F.layer_norm(residual + (x + bias if with_bias else x), (96,), weight, shift, 1e-5)
    pairs = [(elementwise.add_and_norm(x, given, residual, weight, shift, 1e-5, 0.0), plain, leaves)]
    activated = F.gelu(x + bias if with_bias else x)
    pairs.append((elementwise.bias_gelu(x, given), activated, [x] + [bias] * with_bias))
    for found, expected, inputs in pairs:
        assert (found - expected).abs().max() < 3e-6
        gradients = zip(torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream))
        for one, other in gradients:
            assert (one - other).abs().max() < 3e-6 * other.abs().max().clamp(min=1)


def test_dropout_before_the_norm_has_its_share_and_its_own_gradient():
    """What is dropped has no gradient, and the residual has all of it."""
    torch.manual_seed(1)
    x = torch.full((512, 1, 256), 3.0, requires_grad=True)
    residual = torch.randn(512, 1, 256, requires_grad=True)
    weight, shift = torch.ones(256), torch.zeros(256)
    out = elementwise.add_and_norm(x, None, residual, weight, shift, 1e-5, 0.25)
    upstream = torch.randn_like(out)
    of_x, of_residual = torch.autograd.grad(out, [x, residual], upstream)
    kept = of_x != 0
    assert abs(kept.double().mean() - 0.75) < 0.005
    assert torch.allclose(of_x[kept], of_residual[kept] / 0.75, rtol=1e-4)
    sums = residual + torch.where(kept, x / 0.75, 0.0)
    assert torch.allclose(out, F.layer_norm(sums, (256,)), atol=1e-4)


def test_a_sum_of_squares_keeps_the_digits_of_float64():
    torch.manual_seed(0)
    numbers = torch.randn(3_000_017) * torch.logspace(-6, 3, 3_000_017)
    assert elementwise.sum_of_squares(numbers).item() == pytest.approx(numbers.double().square().sum().item(), rel=1e-13)
    assert elementwise.sum_of_squares(numbers[:0]).item() == 0


def test_without_the_kernels_torch_computes(monkeypatch):
    missing = build.Kernels(None, "there is no C++ compiler (g++)")
    for module in (attention, elementwise, gradient_norm):
        monkeypatch.setattr(module, "load_kernels", lambda: missing)
    assert choose_kernel(CPU, torch.bfloat16, 64) == SDPA
    assert not elementwise.supports(torch.float32, 768)
    numbers = torch.full((5000,), 2.0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 1)
    assert gradient_norm.sum_of_squares([numbers], None, CPU).item() == 20000


def test_the_kernel_is_taken_if_it_passes_its_test():
    assert choose_kernel(CPU, torch.float32, 64) == BLOCKED
    assert choose_kernel(CPU, torch.float32, 64, is_sound=lambda *kernel: False) == SDPA


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_cache_folder", lambda: tmp_path)
    return build.load_kernels.__wrapped__


def test_the_library_is_compiled_once_also_by_two_at_a_time(empty_cache, tmp_path, monkeypatch):
    commands = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command) or run(command, **options))
    threads = [threading.Thread(target=empty_cache) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("-c" in command for command in commands) == len(build.SOURCES)
    assert [path.name for path in tmp_path.glob("*/*.so")] == ["kernels.so"]


def test_a_compiler_that_fails_is_a_reason_and_no_error(empty_cache, tmp_path, monkeypatch):
    broken = tmp_path / "g++"
    broken.write_text("#!/bin/sh\n[ $1 = -dumpfullversion ] && exit 0\necho 'attention.cpp:1: fatal error: out of disk' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(build.shutil, "which", lambda name: str(broken))
    kernels = empty_cache()
    assert kernels.library is None and kernels.missing == "g++ failed: attention.cpp:1: fatal error: out of disk"
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    assert empty_cache().missing == "there is no C++ compiler (g++)"
