"""Attention over rows of different lengths: the kernels of CUDA that take cumulative lengths, and a plain fp32 reference.

T tokens of all segments one after the other, A heads, D head size, B segments.
"""

import torch

_NO_DROPOUT = 0.0


def segment_attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """softmax(q k / sqrt(D)) v within each segment, as plain products in fp32; the reference. Returns context_TAD."""
    parts = []
    for q, k, v in zip(*(tensor.float().split(lengths) for tensor in (q_TAD, k_TAD, v_TAD))):
        scores = torch.einsum("qad,kad->aqk", q, k) / q.shape[-1] ** 0.5
        parts.append(torch.einsum("aqk,kad->qad", scores.softmax(-1), v))
    return torch.cat(parts)


def flash_attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """torch's flash kernel with cumulative lengths: fp16 and bf16, Ampere and later."""
    starts = cumulative(lengths, q_TAD.device)
    longest = max(lengths)
    found = torch.ops.aten._flash_attention_forward(
        q_TAD, k_TAD, v_TAD, starts, starts, longest, longest, _NO_DROPOUT, False, False
    )
    return found[0]


def efficient_attention(q_TAD: torch.Tensor, k_TAD: torch.Tensor, v_TAD: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """torch's memory-efficient kernel with cumulative lengths: every precision, also before Ampere."""
    starts = cumulative(lengths, q_TAD.device)
    longest = max(lengths)
    found = torch.ops.aten._efficient_attention_forward(
        q_TAD[None], k_TAD[None], v_TAD[None], None, starts, starts, longest, longest, _NO_DROPOUT, 0, True
    )
    return found[0][0]


KERNELS = {
    "flash": (flash_attention, (torch.bfloat16, torch.float16)),
    "efficient": (efficient_attention, (torch.bfloat16, torch.float16, torch.float32)),
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
