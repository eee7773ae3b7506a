"""The next-sentence head of the formats with pairs (section 4.2; BERT's pooler and classifier).

B batch, H hidden. Every tensor-parallel rank computes it in whole.
"""

import torch

from robustbert.config import ModelConfig

# The classifier's rows, as BERT orders them.
IS_NEXT, IS_NOT_NEXT = 0, 1


class NextSentenceHead(torch.nn.Module):
    """x_BH of each row's first token -> logits_B2 by dense, tanh, dropout, dense."""

    def __init__(self, config: ModelConfig, megatron_config):
        super().__init__()
        self.dropout = config.dropout
        placed = dict(device=torch.cuda.current_device(), dtype=megatron_config.params_dtype)
        self.pooler = torch.nn.Linear(config.hidden_size, config.hidden_size, **placed)
        self.classifier = torch.nn.Linear(config.hidden_size, 2, **placed)

    def forward(self, x_BH: torch.Tensor) -> torch.Tensor:
        """x_BH: the encoder's output at <s>. The columns are IS_NEXT and IS_NOT_NEXT."""
        pooled_BH = torch.tanh(self.pooler(x_BH))
        return self.classifier(torch.nn.functional.dropout(pooled_BH, self.dropout, self.training))
