"""Self-attention over rows of tokens that end in padding, by the kernel that suits the device; no kernel sees a mask it does not need.

On CUDA the tokens of a micro-batch are one sequence of T = B * S tokens cut into segments: the real tokens of a row, then
its padding, which attends to itself and to nothing else. So a variable-length kernel needs no mask, the shapes do not depend on
how much padding there is, and no layout is copied. On CPU a kernel of this project is told how long each row is; without a compiler
torch's scaled_dot_product_attention gets a mask. B rows, S tokens a row, T = B * S, A heads (of this rank), D head size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from robustbert.kernels import attention as cpu_kernel

FLASH, EFFICIENT, BLOCKED, SDPA = "flash", "efficient", "blocked", "sdpa"
KERNELS = (FLASH, EFFICIENT, BLOCKED, SDPA)  # two for CUDA, one for CPU, and what computes everywhere
_FLASH_CAPABILITY = (8, 0)  # Ampere; V100 (7.0) has the memory-efficient kernel
_KERNEL_MULTIPLE, _LARGEST_HEAD = 8, 256
_TOLERANCE = 0.05  # of the largest value, in 16 bits; what is wrong is wrong by more


class Rows(NamedTuple):
    """How T tokens lie in rows, as the kernel wants it told.

    segments_N: int32 (2B + 1), where segments begin, for the variable-length kernels.
    attended_B11S: bool, False on padding, for scaled_dot_product_attention; None where there is no padding.
    lengths_B: int32, the real tokens of each row, for the kernel on CPU; None where there is no padding.
    """

    num_rows: int
    length: int
    segments_N: torch.Tensor | None = None
    attended_B11S: torch.Tensor | None = None
    lengths_B: torch.Tensor | None = None


def choose_kernel(
    device: torch.device, dtype: torch.dtype, head_size: int, is_sound: Callable[[str, torch.device, torch.dtype, int], bool] | None = None
) -> str:
    """The fastest kernel for this device, precision and head size: one of KERNELS. is_sound: instead of `works`."""
    is_sound = works if is_sound is None else is_sound
    if device.type == "cpu":
        has_kernel = cpu_kernel.supports(dtype, head_size) and is_sound(BLOCKED, device, dtype, head_size)
        return BLOCKED if has_kernel else SDPA
    if device.type != "cuda" or head_size % _KERNEL_MULTIPLE or head_size > _LARGEST_HEAD:
        return SDPA
    has_flash = dtype != torch.float32 and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY
    candidates = [FLASH, EFFICIENT] if has_flash else [EFFICIENT]
    return next((kernel for kernel in candidates if is_sound(kernel, device, dtype, head_size)), SDPA)


@torch.enable_grad()
def works(kernel: str, device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Whether a kernel gives the definition's result and gradient here; takes some milliseconds.

    CUDA's kernels are private operators of torch, the CPU's is compiled by whatever compiler is here: one that behaves otherwise
    costs speed, not results.
    """
    num_rows, length = 3, 16
    generator = torch.Generator().manual_seed(0)
    qkv, upstream = (torch.randn(num_rows * length, 2, *more, head_size, generator=generator) for more in ((3,), ()))
    qkv, upstream = qkv.to(device, dtype).requires_grad_(), upstream.to(device, dtype)
    lengths = torch.tensor([length, 9, 1], device=device)
    rows = describe_rows(lengths, num_rows, length, kernel, device)
    if kernel == BLOCKED:  # it makes nothing of what padding attends to
        upstream *= _real_tokens(lengths, length).view(-1, 1, 1)
    try:
        found = attend(qkv, rows, 0.0, kernel)
        (found_gradient,) = torch.autograd.grad(found, qkv, upstream)
    except RuntimeError:
        return False
    exact = qkv.detach().float().requires_grad_()
    expected = attend_plainly(exact, describe_rows(lengths, num_rows, length, FLASH, device))
    (expected_gradient,) = torch.autograd.grad(expected, exact, upstream.float())
    if kernel == BLOCKED:
        found, expected = (context * _real_tokens(lengths, length).view(-1, 1, 1) for context in (found, expected))
    pairs = (found, expected), (found_gradient, expected_gradient)
    return all(bool((one.float() - other).abs().max() < _TOLERANCE * other.abs().max()) for one, other in pairs)


def describe_rows(lengths_B: torch.Tensor | None, num_rows: int, length: int, kernel: str, device: torch.device) -> Rows:
    """lengths_B: int, real tokens of each row, padding on the right; None where every row is full. Never waits for the device."""
    if kernel == BLOCKED:
        return Rows(num_rows, length, lengths_B=None if lengths_B is None else lengths_B.to(torch.int32))
    if kernel == SDPA:
        if lengths_B is None:
            return Rows(num_rows, length)
        return Rows(num_rows, length, attended_B11S=_real_tokens(lengths_B, length)[:, None, None, :])
    starts_B = torch.arange(0, num_rows * length, length, dtype=torch.int32, device=device)
    ends_B = starts_B + (length if lengths_B is None else lengths_B)
    borders_2B = torch.stack([ends_B, starts_B + length], dim=1).flatten()
    return Rows(num_rows, length, segments_N=F.pad(borders_2B, (1, 0)).to(torch.int32))


def attend(qkv_TA3D: torch.Tensor, rows: Rows, dropout: float, kernel: str) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v within each row: (T, A, D). What padding attends to is not defined, but finite."""
    if kernel == BLOCKED:
        return cpu_kernel.attend(qkv_TA3D, rows.lengths_B, rows.num_rows, dropout)
    if kernel == SDPA:
        return _attend_with_mask(qkv_TA3D, rows, dropout)
    return attend_to_segments(*qkv_TA3D.unbind(2), rows, dropout, kernel)


def attend_to_segments(query, key, value, rows: Rows, dropout: float, kernel: str) -> torch.Tensor:
    """As attend, by FLASH or EFFICIENT and of query, key and value apart, (T, A, D) each; strides between tokens are free."""
    segments, length = rows.segments_N, rows.length
    if kernel == FLASH:
        return torch.ops.aten._flash_attention_forward(
            query, key, value, segments, segments, length, length, dropout, False, False
        )[0]
    no_bias, no_causal_mask, keep_logsumexp = None, 0, True
    return torch.ops.aten._efficient_attention_forward(
        query[None], key[None], value[None], no_bias, segments, segments, length, length, dropout, no_causal_mask, keep_logsumexp
    )[0][0]


def attend_plainly(qkv_TA3D: torch.Tensor, rows: Rows) -> torch.Tensor:
    """The definition, row by row and without dropout: what the kernels are checked against. Waits for the device."""
    out = torch.zeros_like(qkv_TA3D[:, :, 0])
    borders = rows.segments_N.tolist()
    for start, stop in zip(borders, borders[1:]):
        query, key, value = qkv_TA3D[start:stop].permute(2, 1, 0, 3)  # (3, A, segment, D)
        scores = (query @ key.transpose(1, 2)) / math.sqrt(query.shape[-1])
        out[start:stop] = (scores.softmax(-1) @ value).transpose(0, 1)
    return out


def _attend_with_mask(qkv_TA3D: torch.Tensor, rows: Rows, dropout: float) -> torch.Tensor:
    _, heads, _, head_size = qkv_TA3D.shape
    qkv = qkv_TA3D.view(rows.num_rows, rows.length, heads, 3, head_size).permute(3, 0, 2, 1, 4)  # (3, B, A, S, D)
    context = F.scaled_dot_product_attention(*qkv, attn_mask=rows.attended_B11S, dropout_p=dropout)
    return context.transpose(1, 2).reshape(-1, heads, head_size)


def _real_tokens(lengths_B: torch.Tensor, length: int) -> torch.Tensor:
    """bool (B, S), False on padding."""
    return torch.arange(length, device=lengths_B.device) < lengths_B[:, None]
