"""One encoder layer, post-LN: self-attention and feed-forward, each with dropout, residual, LayerNorm.

B batch, S sequence, H hidden, A attention heads, D head size, F feed-forward, /tp = split over tensor-parallel ranks.
"""

import torch
import torch.nn.functional as F

from robustbert.config import ModelConfig
from robustbert.parallel.layers import LayerNorm, build_column_linear, build_row_linear
from robustbert.parallel.mesh import Mesh
from robustbert.parallel.random import split_dropout_context


class SelfAttention(torch.nn.Module):
    """Multi-head self-attention, the heads split over the tensor-parallel ranks.

    Query, key and value are one matrix whose rows are grouped by head (A, 3, D), so that a split by rows
    is a split by heads at any tensor-parallel size.
    """

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh):
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.dropout = config.attention_dropout
        self.qkv = build_column_linear(config.hidden_size, 3 * config.hidden_size, megatron_config, mesh)
        self.output = build_row_linear(config.hidden_size, config.hidden_size, megatron_config, mesh)

    def forward(self, x_SBH: torch.Tensor, attended_B11S: torch.Tensor | None) -> torch.Tensor:
        """attended_B11S: bool, False where a key is padding; None where there is no padding."""
        qkv, _ = self.qkv(x_SBH)  # (S, B, 3H/tp), the whole sequence also with sequence parallelism
        length, batch, _ = qkv.shape
        qkv = qkv.view(length, batch, -1, 3, self.head_size).permute(3, 1, 2, 0, 4)  # (3, B, A/tp, S, D)
        dropout = self.dropout if self.training else 0.0
        with split_dropout_context(dropout > 0):
            context = F.scaled_dot_product_attention(*qkv, attn_mask=attended_B11S, dropout_p=dropout)
        context = context.permute(2, 0, 1, 3).reshape(length, batch, -1)  # (S, B, H/tp)
        return self.output(context)[0]


class FeedForward(torch.nn.Module):
    """H -> F/tp -> H with the exact GELU."""

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh):
        super().__init__()
        self.up = build_column_linear(config.hidden_size, config.ffn_hidden_size, megatron_config, mesh)
        self.down = build_row_linear(config.ffn_hidden_size, config.hidden_size, megatron_config, mesh)

    def forward(self, x_SBH: torch.Tensor) -> torch.Tensor:
        hidden_SBF, _ = self.up(x_SBH)
        return self.down(F.gelu(hidden_SBF))[0]


class EncoderLayer(torch.nn.Module):
    """x_SBH -> x_SBH (S/tp with sequence parallelism), section 2.2."""

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh):
        super().__init__()
        self.mesh = mesh
        self.dropout = config.dropout
        self.attention = SelfAttention(config, megatron_config, mesh)
        self.attention_layer_norm = LayerNorm(config.hidden_size, config.layernorm_eps, megatron_config)
        self.ffn = FeedForward(config, megatron_config, mesh)
        self.ffn_layer_norm = LayerNorm(config.hidden_size, config.layernorm_eps, megatron_config)

    def forward(self, x_SBH: torch.Tensor, attended_B11S: torch.Tensor | None) -> torch.Tensor:
        x_SBH = self.attention_layer_norm(x_SBH + self._drop(self.attention(x_SBH, attended_B11S)))
        return self.ffn_layer_norm(x_SBH + self._drop(self.ffn(x_SBH)))

    def _drop(self, x_SBH: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.dropout):
            return x_SBH
        with split_dropout_context(self.mesh.sequence_parallel):
            return F.dropout(x_SBH, self.dropout)
