"""The class that LayerNorms are built on: torch's, computed by Apex's fused kernels where they are installed."""

import functools
from collections.abc import Callable

import torch


def layer_norm_class() -> type[torch.nn.LayerNorm]:
    """torch.nn.LayerNorm, or a subclass of it over Apex's kernels where Apex and CUDA are there."""
    function = _apex_function() if torch.cuda.is_available() else None
    return torch.nn.LayerNorm if function is None else layer_norm_over(function)


def layer_norm_over(function: Callable) -> type[torch.nn.LayerNorm]:
    """LayerNorm over a function(input, weight, bias, normalized_shape, eps), with affine parameters only.

    What torch.compile compiles stays torch's own: the compiler fuses it with what is around it.
    """

    class ApexLayerNorm(torch.nn.LayerNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.compiler.is_compiling():
                return super().forward(x)
            return function(x, self.weight, self.bias, self.normalized_shape, self.eps)

    return ApexLayerNorm


@functools.cache
def _apex_function() -> Callable | None:
    try:
        import fused_layer_norm_cuda  # noqa: F401
        from apex.normalization.fused_layer_norm import fused_layer_norm_affine
    except ImportError:
        return None
    return fused_layer_norm_affine
