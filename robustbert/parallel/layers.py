"""megatron-core's tensor-parallel layers, built for this project: on a mesh, not initialised, parameters marked.

Weights are filled later by model/initialize.py, so that they do not depend on the layout. Every parameter is marked
with `tensor_model_parallel` and `partition_dim` (its split over the tensor-parallel ranks), which gradient norms,
initialisation and checkpoints read.
"""

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding

from robustbert.parallel.apex_layer_norm import layer_norm_class
from robustbert.parallel.mesh import Mesh


def build_column_linear(
    input_size: int, output_size: int, megatron_config, mesh: Mesh, skip_bias_add: bool = False
) -> ColumnParallelLinear:
    """A linear layer whose outputs are split: (..., input_size) -> (..., output_size/tp)."""
    layer = ColumnParallelLinear(
        input_size,
        output_size,
        config=megatron_config,
        init_method=None,
        bias=True,
        skip_bias_add=skip_bias_add,
        tp_group=mesh.groups.tp,
    )
    layer.is_whole = mesh.tp_size == 1
    mark_split(layer.weight, 0)  # the bias is marked already
    return layer


def build_row_linear(input_size: int, output_size: int, megatron_config, mesh: Mesh) -> RowParallelLinear:
    """A linear layer whose inputs are split: (..., input_size/tp) -> (..., output_size), summed over the ranks.

    With tensor parallelism its bias is left to what follows.
    """
    layer = RowParallelLinear(
        input_size,
        output_size,
        config=megatron_config,
        init_method=None,
        bias=True,
        input_is_parallel=True,
        skip_bias_add=True,
        tp_group=mesh.groups.tp,
    )
    layer.is_whole = mesh.tp_size == 1
    mark_split(layer.weight, 1)
    return layer


def apply_linear(
    layer: ColumnParallelLinear | RowParallelLinear, x: torch.Tensor, leaves_bias: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The layer's output, and the bias that it lacks; None where it has it. leaves_bias: if what follows adds it at no cost.

    A layer that no other process has a part of is a product and nothing else: the compiler sees through it.
    """
    if layer.is_whole and not layer.gradient_accumulation_fusion:
        if leaves_bias:
            return F.linear(x, layer.weight), layer.bias
        return F.linear(x, layer.weight, layer.bias), None
    return layer(x)


def build_vocab_embedding(num_rows: int, hidden_size: int, megatron_config, mesh: Mesh) -> VocabParallelEmbedding:
    """An embedding whose rows are split over the tensor-parallel ranks."""
    layer = VocabParallelEmbedding(
        num_rows, hidden_size, init_method=None, config=megatron_config, tp_group=mesh.groups.tp
    )
    mark_shared_embedding(layer.weight)
    return layer


def mark_shared_embedding(weight: torch.nn.Parameter) -> None:
    """Mark a copy of the word embedding, split by rows, that first and last stage hold (section 2.2: tied)."""
    mark_split(weight, 0)
    # The two copies' gradients are added after the data-parallel reduction: a bucket of their own makes both
    # stages cut them alike for the distributed optimizer.
    weight.shared_embedding = True


class LayerNorm(layer_norm_class()):
    """LayerNorm, Apex's where it is installed, whose gradients are summed over the tensor-parallel ranks where those hold parts of the sequence."""

    def __init__(self, hidden_size: int, eps: float, megatron_config):
        super().__init__(
            hidden_size, eps=eps, device=torch.cuda.current_device(), dtype=megatron_config.params_dtype
        )
        for parameter in self.parameters():
            parameter.sequence_parallel = megatron_config.sequence_parallel


def mark_split(parameter: torch.nn.Parameter, dim: int) -> None:
    """Mark a parameter as this rank's part, along `dim`, of one split over the tensor-parallel ranks.

    The layers of some versions of megatron-core have done so already, and its own function asserts that it is the first.
    """
    for name, value in (("tensor_model_parallel", True), ("partition_dim", dim), ("partition_stride", 1)):
        assert getattr(parameter, name, value) == value, (name, getattr(parameter, name), value)
        setattr(parameter, name, value)
