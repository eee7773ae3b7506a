"""Attention over rows of different lengths: the model's kernels for CUDA beside a plain fp32 reference.

T tokens of all segments one after the other, A heads, D head size, B segments.
"""

import torch

from robustbert.model.attention import EFFICIENT, FLASH, Rows, attend_to_segments

_NO_DROPOUT = 0.0


def segment_attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """softmax(q k / sqrt(D)) v within each segment, as plain products in fp32; the reference. Returns context_TAD."""
    parts = []
    for q, k, v in zip(*(tensor.float().split(lengths) for tensor in (q_TAD, k_TAD, v_TAD))):
        scores = torch.einsum("qad,kad->aqk", q, k) / q.shape[-1] ** 0.5
        parts.append(torch.einsum("aqk,kad->qad", scores.softmax(-1), v))
    return torch.cat(parts)


def _by(kernel: str):
    """The model's own attention by one of its kernels, in the form of segment_attention."""

    def attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        rows = Rows(len(lengths), max(lengths), segments_N=cumulative(lengths, q_TAD.device))
        return attend_to_segments(q_TAD, k_TAD, v_TAD, rows, _NO_DROPOUT, kernel)

    return attention


KERNELS = {
    FLASH: (_by(FLASH), (torch.bfloat16, torch.float16)),
    EFFICIENT: (_by(EFFICIENT), (torch.bfloat16, torch.float16, torch.float32)),
}
# Largest absolute difference of context and gradients; inputs are standard normal.
TOLERANCE = {torch.bfloat16: 4e-2, torch.float16: 5e-3, torch.float32: 1e-4}


def cumulative(lengths: list[int], device) -> torch.Tensor:
    """int32 (B + 1,): where each segment begins, and the end."""
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def compare(
    kernel, dtype: torch.dtype, device: str, lengths: list[int], num_heads: int = 12, head_size: int = 64
) -> dict[str, float]:
    """Largest absolute difference to the reference: of the context, and of the gradients of q, k, v."""
    generator = torch.Generator().manual_seed(1)
    shape = (sum(lengths), num_heads, head_size)
    drawn = [torch.randn(shape, generator=generator).to(dtype).to(device) for _ in range(4)]
    *inputs, weight = drawn
    results = []
    for function in (kernel, segment_attention):
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        context = function(*leaves, lengths)
        context.backward(weight.to(context.dtype))
        results.append([context.detach().float(), *(leaf.grad.float() for leaf in leaves)])
    return {name: float((mine - other).abs().max()) for name, mine, other in zip(("context", "q", "k", "v"), *results)}
