"""What the card reaches: large bf16 products of random data, the products of the model's own shapes, a copy."""

import torch

from benchmarks.gpu.clock import least_s
from benchmarks.gpu.context import Context

_HIDDEN = {"roberta-base": 768, "roberta-large": 1024}
_TOKENS = 32 * 512
_MASKED_SHARE = 0.15
_PADDED_VOCABULARY = 50304


def shapes(num_tokens: int) -> dict[str, tuple[int, int, int]]:
    """(rows, inner, columns) of the forward products of each model's layer and head."""
    found = {}
    for model, hidden in _HIDDEN.items():
        masked = int(num_tokens * _MASKED_SHARE)
        found |= {
            f"{model} qkv": (num_tokens, hidden, 3 * hidden),
            f"{model} output": (num_tokens, hidden, hidden),
            f"{model} up": (num_tokens, hidden, 4 * hidden),
            f"{model} down": (num_tokens, 4 * hidden, hidden),
            f"{model} vocabulary": (masked, hidden, _PADDED_VOCABULARY),
        }
    return found


def run(context: Context) -> str:
    """Operations and bytes (read and written) a second."""
    device, size = context.device, 64 if context.rehearse else 8192
    calls = 2 if context.rehearse else 20
    square = _product_rate((size, size, size), device, calls)
    of_shapes = {}
    for name, shape in shapes(32 if context.rehearse else _TOKENS).items():
        if not context.rehearse or name.endswith("output"):
            of_shapes[name] = _product_rate(shape, device, calls)
    num_bytes = (1 if context.rehearse else 2048) * 2**20
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copied = 2 * num_bytes / least_s(lambda: target.copy_(source), device, calls)
    rows = [[name, f"{rate / 1e12:.0f}", f"{rate / square:.0%}"] for name, rate in of_shapes.items()]
    title = f"bf16 products, {_TOKENS:,} tokens: TFLOP/s and share of the {size}-cubed one ({square / 1e12:.0f})"
    context.record(
        product_flops_per_s=square,
        shape_flops_per_s=of_shapes,
        copy_bytes_per_s=copied,
        tables=[{"title": title, "columns": ["product", "TFLOP/s", "share"], "rows": rows}],
    )
    return f"bf16 products {square / 1e12:.0f} TFLOP/s ({size} cubed, random data), copies {copied / 1e12:.2f} TB/s"


def _product_rate(shape: tuple[int, int, int], device: str, calls: int) -> float:
    rows, inner, columns = shape
    left = torch.randn(rows, inner, device=device).bfloat16()
    right = torch.randn(columns, inner, device=device).bfloat16().t()  # as a linear layer's weight lies
    return 2 * rows * inner * columns / least_s(lambda: left @ right, device, calls)
