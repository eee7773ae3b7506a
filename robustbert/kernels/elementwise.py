"""Work on every element on CPU, in one pass over memory: bias + dropout + residual + LayerNorm, bias + GELU, sums of squares.

N rows, H hidden, F feed-forward. Each is a torch operator that differentiates itself.
"""

from ctypes import c_double, c_long, c_uint64, c_void_p

import torch

from robustbert.kernels.attention import DTYPES, draw_seed
from robustbert.kernels.build import load_kernels

WIDTH_MULTIPLE = 16


def supports(dtype: torch.dtype, width: int) -> bool:
    """Whether add_and_norm and bias_gelu compute in this precision and width; it may then compile the kernels."""
    return dtype in DTYPES and width % WIDTH_MULTIPLE == 0 and load_kernels().library is not None


def add_and_norm(
    x: torch.Tensor, bias_H: torch.Tensor | None, residual: torch.Tensor, weight_H: torch.Tensor, shift_H: torch.Tensor, eps: float, dropout: float
) -> torch.Tensor:
    """LayerNorm(residual + dropout(x + bias)) over the last dimension. All are of one precision; sums and statistics are in fp32.

    bias_H: None if x has it already. Dropout's numbers depend on one draw from torch's CPU generator, not on the number of threads.
    """  # fmt: skip
    return _forward(x.contiguous(), bias_H, residual.contiguous(), weight_H, shift_H, eps, dropout, draw_seed(dropout))[0]


@torch.library.custom_op("robustbert::add_and_norm", mutates_args=())
def _forward(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    dropout: float,
    seed: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The normalised sums, the sums, and their mean and inverse deviation, fp32 (2, N)."""
    width = x.shape[-1]
    out, sums = torch.empty_like(x), torch.empty_like(x)
    statistics = x.new_empty(2, x.numel() // width, dtype=torch.float32)
    load_kernels().library.add_and_norm_forward(
        int(x.dtype == torch.bfloat16), *map(_address, (x, bias, residual, weight, shift)), statistics.shape[1], width,
        c_double(eps), c_double(dropout), c_uint64(int(seed)), *map(_address, (sums, out, *statistics)), torch.get_num_threads(),
    )  # fmt: skip
    return out, sums, statistics


@_forward.register_fake
def _(x, bias, residual, weight, shift, eps, dropout, seed):
    return torch.empty_like(x), torch.empty_like(x), x.new_empty(2, x.numel() // x.shape[-1], dtype=torch.float32)


@torch.library.custom_op("robustbert::add_and_norm_backward", mutates_args=())
def _backward(
    upstream: torch.Tensor, sums: torch.Tensor, statistics: torch.Tensor, weight: torch.Tensor, dropout: float, seed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of x and residual, and those of weight, shift and bias, fp32 (3, H)."""
    library, width, num_rows = load_kernels().library, sums.shape[-1], statistics.shape[1]
    residual_gradient = torch.empty_like(sums)
    x_gradient = torch.empty_like(sums)
    chunk = library.rows_of_a_chunk()
    partial = sums.new_empty(-(-num_rows // chunk), 3, width, dtype=torch.float32)
    upstream = upstream.contiguous()
    library.add_and_norm_backward(
        int(sums.dtype == torch.bfloat16), *map(_address, (upstream, sums, weight, *statistics)), num_rows, width,
        c_double(dropout), c_uint64(int(seed)), *map(_address, (x_gradient, residual_gradient, partial)), torch.get_num_threads(),
    )  # fmt: skip
    return x_gradient, residual_gradient, partial.sum(0)


@_backward.register_fake
def _(upstream, sums, statistics, weight, dropout, seed):
    return torch.empty_like(sums), torch.empty_like(sums), sums.new_empty(3, sums.shape[-1], dtype=torch.float32)


def _keep(ctx, inputs, output) -> None:
    _, bias, _, weight, _, _, ctx.dropout, seed = inputs
    ctx.has_bias = bias is not None
    ctx.save_for_backward(*output[1:], weight, seed)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx, upstream, *_):
    sums, statistics, weight, seed = ctx.saved_tensors
    x_gradient, residual_gradient, of_parameters = _backward(upstream, sums, statistics, weight, ctx.dropout, seed)
    weight_gradient, shift_gradient, bias_gradient = of_parameters.to(weight.dtype).unbind(0)
    return x_gradient, bias_gradient if ctx.has_bias else None, residual_gradient, weight_gradient, shift_gradient, None, None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def bias_gelu(x: torch.Tensor, bias_F: torch.Tensor | None) -> torch.Tensor:
    """GELU(x + bias), the exact one; bias_F: None if x has it already."""
    return _gelu(x.contiguous(), bias_F)


@torch.library.custom_op("robustbert::bias_gelu", mutates_args=())
def _gelu(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    out = torch.empty_like(x)
    arguments = *map(_address, (x, bias)), x.numel() // x.shape[-1], x.shape[-1], _address(out), torch.get_num_threads()
    load_kernels().library.gelu_forward(int(x.dtype == torch.bfloat16), *arguments)
    return out


@_gelu.register_fake
def _(x, bias):
    return torch.empty_like(x)


@torch.library.custom_op("robustbert::bias_gelu_backward", mutates_args=())
def _gelu_backward(upstream: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of x, and of the bias in fp32 (F)."""
    library, width, num_rows = load_kernels().library, x.shape[-1], x.numel() // x.shape[-1]
    gradient = torch.empty_like(x)
    partial = x.new_empty(-(-num_rows // library.rows_of_a_chunk()), width, dtype=torch.float32)
    upstream = upstream.contiguous()
    arguments = *map(_address, (upstream, x, bias)), num_rows, width, *map(_address, (gradient, partial)), torch.get_num_threads()
    library.gelu_backward(int(x.dtype == torch.bfloat16), *arguments)
    return gradient, partial.sum(0)


@_gelu_backward.register_fake
def _(upstream, x, bias):
    return torch.empty_like(x), x.new_empty(x.shape[-1], dtype=torch.float32)


def _keep_gelu(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_gelu(ctx, upstream):
    x, bias = ctx.saved_tensors
    gradient, bias_gradient = _gelu_backward(upstream, x, bias)
    return gradient, None if bias is None else bias_gradient.to(bias.dtype)


_gelu.register_autograd(_differentiate_gelu, setup_context=_keep_gelu)


def sum_of_squares(numbers: torch.Tensor) -> torch.Tensor:
    """Of flat fp32 numbers, float64 without a dimension; the digits of a sum in fp64 are kept."""
    library = load_kernels().library
    partial = torch.empty(-(-numbers.numel() // library.numbers_of_a_chunk()), dtype=torch.float64)
    library.sums_of_squares(_address(numbers), c_long(numbers.numel()), _address(partial), torch.get_num_threads())
    return partial.sum()


def _address(tensor: torch.Tensor | None) -> c_void_p | None:
    return None if tensor is None else c_void_p(tensor.data_ptr())
