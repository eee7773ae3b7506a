"""The first stage's input: word, position (and token type) embeddings, LayerNorm, dropout.

B batch, S sequence, T = B * S tokens (row after row), H hidden, /tp = split over tensor-parallel ranks.
"""

import torch
from megatron.core.tensor_parallel import scatter_to_sequence_parallel_region

from robustbert.config import ModelConfig
from robustbert.parallel.layers import LayerNorm, build_vocab_embedding
from robustbert.parallel.mesh import Mesh
from robustbert.parallel.random import split_dropout_context


class Embeddings(torch.nn.Module):
    """tokens_BS -> x_T1H (T/tp with sequence parallelism)."""

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh):
        super().__init__()
        self.mesh = mesh
        self.first_position = config.first_position
        self.dropout = config.dropout
        self.word_embeddings = build_vocab_embedding(
            config.padded_vocab_size, config.hidden_size, megatron_config, mesh
        )
        self.position_embeddings = _build_table(
            config.max_sequence_length + config.first_position, config.hidden_size, megatron_config
        )
        self.token_type_embeddings = (
            _build_table(config.num_token_types, config.hidden_size, megatron_config) if config.num_token_types else None
        )
        self.layer_norm = LayerNorm(config.hidden_size, config.layernorm_eps, megatron_config)

    def forward(self, tokens_BS: torch.Tensor, token_types_BS: torch.Tensor | None = None) -> torch.Tensor:
        """Padding is on the right only; a padded position's value does not matter, no one attends to it."""
        length = tokens_BS.shape[1]
        x_BSH = self.word_embeddings(tokens_BS)
        x_BSH = x_BSH + self.position_embeddings.weight[self.first_position : self.first_position + length]
        if self.token_type_embeddings is not None:
            if token_types_BS is None:
                x_BSH = x_BSH + self.token_type_embeddings.weight[0]
            else:
                x_BSH = x_BSH + self.token_type_embeddings(token_types_BS)
        x_T1H = x_BSH.view(-1, 1, x_BSH.shape[-1])
        if self.mesh.sequence_parallel:
            x_T1H = scatter_to_sequence_parallel_region(x_T1H, group=self.mesh.groups.tp)
        x_T1H = self.layer_norm(x_T1H)
        if self.training and self.dropout:
            with split_dropout_context(self.mesh.sequence_parallel):
                x_T1H = torch.nn.functional.dropout(x_T1H, self.dropout)
        return x_T1H


def _build_table(num_rows: int, hidden_size: int, megatron_config) -> torch.nn.Embedding:
    return torch.nn.Embedding(
        num_rows, hidden_size, device=torch.cuda.current_device(), dtype=megatron_config.params_dtype
    )
