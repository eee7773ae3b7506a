"""Self-attention with dropout on CPU, as a torch operator that differentiates itself.

T tokens (row after row, R rows of S), A heads, D head size. Compared with scaled_dot_product_attention, which has no fast path for
dropout on CPU, no matrix of R x A x S x S numbers is ever written.
"""

from ctypes import c_double, c_long, c_uint64, c_void_p

import torch
from torch.utils.flop_counter import register_flop_formula

from robustbert.kernels.build import load_kernels

DTYPES = (torch.float32, torch.bfloat16)
HEAD_MULTIPLE, LARGEST_HEAD = 16, 256


def supports(dtype: torch.dtype, head_size: int) -> bool:
    """Whether attend computes in this precision and with heads of this size; it may then compile the kernels."""
    return dtype in DTYPES and head_size % HEAD_MULTIPLE == 0 and head_size <= LARGEST_HEAD and load_kernels().library is not None


def attend(qkv_TA3D: torch.Tensor, lengths_R: torch.Tensor | None, num_rows: int, dropout: float) -> torch.Tensor:
    """dropout(softmax(q k^T / sqrt(D))) v within each row: (T, A, D), in the precision of qkv.

    lengths_R: int, the real tokens of each row, padding on the right; None if all are. What padding attends to is finite.
    Dropout's numbers depend on one draw from torch's CPU generator, not on the number of threads.
    """
    lengths_R = None if lengths_R is None else lengths_R.to(torch.int32)
    return _forward(qkv_TA3D.contiguous(), lengths_R, num_rows, dropout, draw_seed(dropout))[0]


def draw_seed(dropout: float) -> torch.Tensor:
    """int64, no dimension: from torch's CPU generator, which is not touched without dropout."""
    return torch.randint(2**62, (), dtype=torch.int64) if dropout > 0 else torch.zeros((), dtype=torch.int64)


def dropout_factors(dropout: float, seed: int, matrix: int, num_rows: int, num_columns: int) -> torch.Tensor:
    """What the kernels multiply a matrix by, fp32 (num_rows, num_columns): 0 with probability `dropout`, else 1 / (1 - dropout).

    The share is rounded to a multiple of 1 / 65536. matrix: of attention row * A + head.
    """
    library = load_kernels().library
    multiple = library.draws_at_a_time()
    factors = torch.empty(num_rows, -(-num_columns // multiple) * multiple)
    library.dropout_factors(c_double(dropout), c_uint64(seed), matrix, num_rows, factors.shape[1], _address(factors))
    return factors[:, :num_columns]


@torch.library.custom_op("robustbert::attention", mutates_args=())
def _forward(
    qkv: torch.Tensor, lengths: torch.Tensor | None, num_rows: int, dropout: float, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The context (T, A, D), and the logarithm of each softmax's denominator, fp32 (R, A, S)."""
    num_tokens, heads, _, head_size = qkv.shape
    out = qkv.new_empty(num_tokens, heads, head_size)
    logsumexp = qkv.new_empty(num_rows, heads, num_tokens // num_rows, dtype=torch.float32)
    failed = load_kernels().library.attention_forward(
        *_inputs(qkv), *_shape(qkv, num_rows, lengths), c_double(dropout), c_uint64(int(seed)), _address(out), _address(logsumexp), torch.get_num_threads()
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for attention's blocks")
    return out, logsumexp


@_forward.register_fake
def _(qkv, lengths, num_rows, dropout, seed):
    num_tokens, heads, _, head_size = qkv.shape
    logsumexp = qkv.new_empty(num_rows, heads, num_tokens // num_rows, dtype=torch.float32)
    return qkv.new_empty(num_tokens, heads, head_size), logsumexp


@torch.library.custom_op("robustbert::attention_backward", mutates_args=())
def _backward(
    upstream: torch.Tensor,
    qkv: torch.Tensor,
    out: torch.Tensor,
    logsumexp: torch.Tensor,
    lengths: torch.Tensor | None,
    num_rows: int,
    dropout: float,
    seed: torch.Tensor,
) -> torch.Tensor:
    gradient = torch.empty_like(qkv)
    upstream = upstream.contiguous()
    failed = load_kernels().library.attention_backward(
        *_inputs(qkv), _address(out), _address(logsumexp), _address(upstream), *_shape(qkv, num_rows, lengths),
        c_double(dropout), c_uint64(int(seed)), *_parts(gradient), torch.get_num_threads(),
    )  # fmt: skip
    if failed:
        raise MemoryError("no memory for attention's blocks")
    return gradient


@_backward.register_fake
def _(upstream, qkv, out, logsumexp, lengths, num_rows, dropout, seed):
    return torch.empty_like(qkv)


def _keep(ctx, inputs, output) -> None:
    qkv, lengths, ctx.num_rows, ctx.dropout, seed = inputs
    ctx.save_for_backward(qkv, *output, lengths, seed)


def _differentiate(ctx, upstream, _):
    qkv, out, logsumexp, lengths, seed = ctx.saved_tensors
    gradient = _backward(upstream, qkv, out, logsumexp, lengths, ctx.num_rows, ctx.dropout, seed)
    return gradient, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


@register_flop_formula(torch.ops.robustbert.attention)
def _forward_flops(qkv_shape, lengths, num_rows, *others, out_shape=None, **keywords) -> int:
    """For whoever counts operations with torch: two products, every token with all of its row."""
    return 2 * _product_flops(qkv_shape, num_rows)


@register_flop_formula(torch.ops.robustbert.attention_backward)
def _backward_flops(upstream_shape, qkv_shape, out, logsumexp, lengths, num_rows, *others, out_shape=None, **keywords) -> int:
    """Five products: the scores are computed again."""
    return 5 * _product_flops(qkv_shape, num_rows)


def _product_flops(qkv_shape, num_rows: int) -> int:
    num_tokens, heads, _, head_size = qkv_shape
    return 2 * num_tokens * heads * (num_tokens // num_rows) * head_size


def _inputs(qkv: torch.Tensor) -> tuple:
    return (int(qkv.dtype == torch.bfloat16), *_parts(qkv))


def _parts(qkv: torch.Tensor) -> list[c_void_p]:
    """Where query, key and value begin: they lie side by side in each head."""
    return [_address(qkv, part * qkv.shape[-1]) for part in range(3)]


def _shape(qkv: torch.Tensor, num_rows: int, lengths: torch.Tensor | None) -> tuple:
    num_tokens, heads, _, head_size = qkv.shape
    strides = c_long(qkv.stride(0)), c_long(qkv.stride(1))
    return num_rows, num_tokens // num_rows, heads, head_size, *strides, None if lengths is None else _address(lengths)


def _address(tensor: torch.Tensor, offset: int = 0) -> c_void_p:
    return c_void_p(tensor.data_ptr() + offset * tensor.element_size())
