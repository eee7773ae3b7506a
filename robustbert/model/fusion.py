"""Work on every element of the activations, and whether torch.compile fuses it: bias + GELU, bias + dropout + residual + LayerNorm.

Where a layer's products need no other process the whole layer is one compiled graph. Where they do (tensor parallelism) the
collectives stay outside and what lies between them is compiled. T tokens, H hidden, F feed-forward, /tp = split over ranks.
"""

import functools
import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from robustbert.kernels import elementwise
from robustbert.parallel.layers import LayerNorm
from robustbert.parallel.linear_cross_entropy import PLAIN_KERNELS, ChunkKernels, row_statistics, turn_into_gradient

_MOST_COMPILERS = 4  # processes that compile kernels, of each process of the job


def bias_gelu(x_T1F: torch.Tensor, bias_F: torch.Tensor | None) -> torch.Tensor:
    """The exact GELU (section 2.2; BERT's), of x plus a bias that the product left out."""
    return F.gelu(x_T1F if bias_F is None else x_T1F + bias_F)


def add_and_norm(
    x_T1H: torch.Tensor, bias_H: torch.Tensor | None, residual_T1H: torch.Tensor, norm: LayerNorm, dropout: float
) -> torch.Tensor:
    """LayerNorm(residual + dropout(x + bias)): what ends each half of a post-LN layer."""
    x_T1H = x_T1H if bias_H is None else x_T1H + bias_H
    if dropout:
        x_T1H = F.dropout(x_T1H, dropout)
    return norm(residual_T1H + x_T1H)


def add_and_norm_on_cpu(
    x_T1H: torch.Tensor, bias_H: torch.Tensor | None, residual_T1H: torch.Tensor, norm: LayerNorm, dropout: float
) -> torch.Tensor:
    """add_and_norm in one pass over memory."""
    return elementwise.add_and_norm(x_T1H, bias_H, residual_T1H, norm.weight, norm.bias, norm.eps, dropout)


@dataclass(frozen=True)
class Fusion:
    """The functions of a model, compiled or as they are. compile: of a layer's forward; hooks of the layer stay outside of it.

    takes_biases: bias_gelu and add_and_norm add a bias at no cost, so the products before them leave it out.
    """

    is_compiled: bool
    compile: Callable[[Callable], Callable]
    bias_gelu: Callable
    add_and_norm: Callable
    loss_kernels: ChunkKernels
    takes_biases: bool = False


def build_fusion(
    compile: bool | str, device: torch.device, tp_size: int, variable_lengths: bool, has_cpu_kernels: bool = False
) -> Fusion:
    """compile: model.compile; has_cpu_kernels: for this device, precision and width, if nothing is compiled.

    ValueError where it is true and this machine has no compiler for the device.
    """
    missing = _missing_compiler(device)
    if compile is True and missing:
        raise ValueError(f"model.compile: true needs {missing}; use auto, which does without")
    if compile is False or missing or (compile == "auto" and device.type != "cuda"):
        if has_cpu_kernels:
            return Fusion(False, _as_it_is, elementwise.bias_gelu, add_and_norm_on_cpu, PLAIN_KERNELS, takes_biases=True)
        return Fusion(False, _as_it_is, bias_gelu, add_and_norm, PLAIN_KERNELS)
    import torch._inductor.config as inductor

    inductor.compile_threads = min(inductor.compile_threads, _MOST_COMPILERS)
    # With rows of many widths the second shape makes a kernel for all of them; otherwise a shape has its own.
    compiled = functools.partial(torch.compile, dynamic=None if variable_lengths else False)
    return Fusion(
        is_compiled=True,
        compile=compiled if tp_size == 1 else _as_it_is,
        bias_gelu=compiled(bias_gelu) if tp_size > 1 else bias_gelu,
        add_and_norm=compiled(add_and_norm) if tp_size > 1 else add_and_norm,
        # All rows at once: nothing in fp32 is kept.
        loss_kernels=ChunkKernels(torch.compile(row_statistics), torch.compile(turn_into_gradient), chunk_numel=2**62),
    )


def _as_it_is(function: Callable) -> Callable:
    return function


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "the package triton"
    return None if shutil.which("g++") or shutil.which("clang++") else "a C++ compiler (g++)"
