"""One encoder layer, post-LN: self-attention and feed-forward, each with dropout, residual, LayerNorm.

B batch, S sequence, T = B * S tokens (row after row), H hidden, A attention heads, D head size, F feed-forward, /tp = split over
tensor-parallel ranks.
"""

import torch

from robustbert.config import ModelConfig
from robustbert.model.attention import Rows, attend
from robustbert.model.fusion import Fusion
from robustbert.parallel.layers import LayerNorm, apply_linear, build_column_linear, build_row_linear
from robustbert.parallel.mesh import Mesh
from robustbert.parallel.random import split_dropout_context


class SelfAttention(torch.nn.Module):
    """Multi-head self-attention, the heads split over the tensor-parallel ranks.

    Query, key and value are one matrix whose rows are grouped by head (A, 3, D), so that a split by rows
    is a split by heads at any tensor-parallel size.
    """

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh, kernel: str, fusion: Fusion):
        super().__init__()
        self.leaves_bias = fusion.takes_biases
        self.head_size = config.hidden_size // config.num_attention_heads
        self.dropout = config.attention_dropout
        self.kernel = kernel
        self.splits_heads = mesh.tp_size > 1
        self.qkv = build_column_linear(config.hidden_size, 3 * config.hidden_size, megatron_config, mesh)
        self.output = build_row_linear(config.hidden_size, config.hidden_size, megatron_config, mesh)

    def forward(self, x_T1H: torch.Tensor, rows: Rows) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output, and the bias that it lacks (None: it has it)."""
        qkv = apply_linear(self.qkv, x_T1H)[0]  # (T, 1, 3H/tp), all tokens also with sequence parallelism
        qkv = qkv.view(qkv.shape[0], -1, 3, self.head_size)  # (T, A/tp, 3, D)
        dropout = self.dropout if self.training else 0.0
        with split_dropout_context(self.splits_heads and dropout > 0):
            context = attend(qkv, rows, dropout, self.kernel)
        return apply_linear(self.output, context.reshape(context.shape[0], 1, -1), self.leaves_bias)


class FeedForward(torch.nn.Module):
    """H -> F/tp -> H with the exact GELU."""

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh, fusion: Fusion):
        super().__init__()
        self.bias_gelu = fusion.bias_gelu
        self.leaves_bias = fusion.takes_biases
        self.up = build_column_linear(config.hidden_size, config.ffn_hidden_size, megatron_config, mesh, skip_bias_add=True)
        self.down = build_row_linear(config.ffn_hidden_size, config.hidden_size, megatron_config, mesh)

    def forward(self, x_T1H: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The output, and the bias that it lacks (None: it has it)."""
        x_T1F = self.bias_gelu(*apply_linear(self.up, x_T1H, self.leaves_bias))
        return apply_linear(self.down, x_T1F, self.leaves_bias)


class EncoderLayer(torch.nn.Module):
    """x_T1H -> x_T1H (T/tp with sequence parallelism), section 2.2."""

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh, kernel: str, fusion: Fusion):
        super().__init__()
        self.splits_sequence = mesh.sequence_parallel
        self.dropout = config.dropout
        self.add_and_norm = fusion.add_and_norm
        self.attention = SelfAttention(config, megatron_config, mesh, kernel, fusion)
        self.attention_layer_norm = LayerNorm(config.hidden_size, config.layernorm_eps, megatron_config)
        self.ffn = FeedForward(config, megatron_config, mesh, fusion)
        self.ffn_layer_norm = LayerNorm(config.hidden_size, config.layernorm_eps, megatron_config)

    def forward(self, x_T1H: torch.Tensor, rows: Rows) -> torch.Tensor:
        x_T1H = self._end_half(*self.attention(x_T1H, rows), x_T1H, self.attention_layer_norm)
        return self._end_half(*self.ffn(x_T1H), x_T1H, self.ffn_layer_norm)

    def _end_half(self, x_T1H: torch.Tensor, bias_H: torch.Tensor | None, residual_T1H: torch.Tensor, norm: LayerNorm) -> torch.Tensor:
        dropout = self.dropout if self.training else 0.0
        with split_dropout_context(self.splits_sequence and dropout > 0):
            return self.add_and_norm(x_T1H, bias_H, residual_T1H, norm, dropout)
