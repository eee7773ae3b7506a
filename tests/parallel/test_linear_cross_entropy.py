"""Projection and cross-entropy in one: losses and gradients of plain PyTorch, however the work is cut, and no logits in fp32."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from robustbert.parallel.linear_cross_entropy import (
    IGNORE_INDEX,
    PLAIN_KERNELS,
    ChunkKernels,
    VocabularyShard,
    linear_cross_entropy,
    row_statistics,
    turn_into_gradient,
)
from robustbert.plan.trace import StepTrace
from robustbert.testing import run_on_ranks

M, H, V, REAL_V = 50, 24, 128, 117
# As torch.compile sees them, without the compiler.
ONE_CHUNK = ChunkKernels(row_statistics, turn_into_gradient, chunk_numel=2**62)
SMALL_CHUNKS = ChunkKernels(PLAIN_KERNELS.statistics, PLAIN_KERNELS.gradient, chunk_numel=7 * V)


def made_up(dtype=torch.float32):
    generator = torch.Generator().manual_seed(4)
    x, weight = torch.randn(M, H, generator=generator), torch.randn(V, H, generator=generator)
    bias = torch.randn(V, generator=generator)
    bias[REAL_V:] = float("-inf")
    targets = torch.randint(0, REAL_V, (M,), generator=generator)
    targets[::9] = IGNORE_INDEX
    return [tensor.to(dtype).requires_grad_() for tensor in (x, weight, bias)], targets


def gradients(function, dtype=torch.float32, scale=1.0):
    tensors, targets = made_up(dtype)
    loss = function(*tensors, targets)
    (loss * scale).backward()
    return loss.detach(), [tensor.grad / scale for tensor in tensors]


def plain(x, weight, bias, targets):
    return F.cross_entropy(F.linear(x, weight, bias).float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")


@pytest.mark.parametrize("kernels", [PLAIN_KERNELS, SMALL_CHUNKS, ONE_CHUNK], ids=["plain", "small-chunks", "one-chunk"])
def test_loss_and_gradients_are_plain_pytorchs(kernels):
    expected, expected_gradients = gradients(plain)
    loss, found = gradients(lambda *args: linear_cross_entropy(*args, kernels=kernels))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(found, expected_gradients):
        assert (ours - theirs).abs().max() < 1e-5
    assert found[2][REAL_V:].eq(0).all(), "rows that only pad the vocabulary got a gradient"


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("kernels", [PLAIN_KERNELS, ONE_CHUNK], ids=["plain", "one-chunk"])
def test_gradients_in_16_bits_are_rounded_once_and_keep_the_loss_scale(dtype, tolerance, kernels):
    """With fp16's loss scale probabilities below fp16's smallest number still have a gradient."""
    scale = 2.0**10 if dtype == torch.float16 else 1.0
    expected = gradients(plain)[1]
    found = gradients(lambda *args: linear_cross_entropy(*args, kernels=kernels), dtype, scale)[1]
    for ours, theirs in zip(found, expected):
        assert (ours.float() - theirs).abs().max() < tolerance * theirs.abs().max()


def test_positions_without_a_target_count_for_nothing():
    tensors, targets = made_up()
    counted = targets != IGNORE_INDEX
    with torch.no_grad():
        x, weight, bias = tensors
        without = linear_cross_entropy(x[counted], weight, bias, targets[counted])
        assert linear_cross_entropy(x, weight, bias, targets).item() == pytest.approx(without.item(), rel=1e-6)
        assert linear_cross_entropy(x[:0], weight, bias, targets[:0]) == 0


def check_shard(job):
    """Loss and gradients of this rank's half of the vocabulary."""
    from robustbert.config import ParallelConfig
    from robustbert.device import Device
    from robustbert.parallel.mesh import open_mesh

    device = Device.detect(job)
    with device.joined(job, 60), open_mesh(device, ParallelConfig(tensor=2)) as mesh:
        (x, weight, bias), targets = made_up()
        rows = slice(job.rank * V // 2, (job.rank + 1) * V // 2)
        weight, bias = weight.detach()[rows].requires_grad_(), bias.detach()[rows].requires_grad_()
        loss = linear_cross_entropy(x, weight, bias, targets, VocabularyShard(rows.start, mesh.groups.tp, 2))
        loss.backward()
        return loss.item(), [tensor.grad.tolist() for tensor in (x, weight, bias)]


def test_two_tensor_parallel_ranks_have_one_ranks_loss_and_gradients():
    expected, (of_x, of_weight, of_bias) = gradients(plain)
    shards = run_on_ranks(check_shard, 2)
    for rank, (loss, (x, weight, bias)) in enumerate(shards):
        rows = slice(rank * V // 2, (rank + 1) * V // 2)
        assert loss == pytest.approx(expected.item(), rel=1e-6)
        for ours, theirs in ((x, of_x), (weight, of_weight[rows]), (bias, of_bias[rows])):
            assert (torch.tensor(ours) - theirs).abs().max() < 1e-5


def test_nothing_of_the_logits_size_is_made_in_fp32():
    """Peak of what the loss allocates, forward and backward: the logits in bf16, the weight's gradient, and a chunk."""
    predictions, hidden, vocabulary = 512, 16, 8192
    kernels = ChunkKernels(PLAIN_KERNELS.statistics, PLAIN_KERNELS.gradient, chunk_numel=16 * vocabulary)
    with FakeTensorMode():
        x = torch.empty(predictions, hidden, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.empty(vocabulary, hidden, dtype=torch.bfloat16, requires_grad=True)
        bias, targets = torch.empty(vocabulary, dtype=torch.bfloat16), torch.empty(predictions, dtype=torch.int64)
        with StepTrace() as trace:
            linear_cross_entropy(x, weight, bias, targets, kernels=kernels).backward()
    logits_bytes, chunk_bytes = 2 * predictions * vocabulary, 4 * 16 * vocabulary
    assert logits_bytes < trace.peak_bytes < 1.1 * logits_bytes + 3 * chunk_bytes + 4 * weight.numel()
