"""The masked language model's head, computed at masked positions only (15% of them: section 2.3).

M masked positions, H hidden, V padded vocabulary, /tp = split over tensor-parallel ranks.
"""

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.layers import linear_with_grad_accumulation_and_async_allreduce

from robustbert.config import ModelConfig
from robustbert.parallel.layers import mark_shared_embedding, mark_split
from robustbert.parallel.linear_cross_entropy import PLAIN_KERNELS, ChunkKernels, VocabularyShard, linear_cross_entropy
from robustbert.parallel.mesh import Mesh


class MaskedLanguageModelHead(torch.nn.Module):
    """x_MH -> logits_MV/tp, or the loss of targets, by dense, GELU, LayerNorm, and the word embedding with a bias.

    Every tensor-parallel rank computes the dense part in whole; only the projection onto the vocabulary is split.
    The head owns a copy of the word embedding where the first stage is another process.
    """

    def __init__(self, config: ModelConfig, megatron_config, mesh: Mesh, loss_kernels: ChunkKernels = PLAIN_KERNELS):
        super().__init__()
        self.mesh = mesh
        self.loss_kernels = loss_kernels
        placed = dict(device=torch.cuda.current_device(), dtype=megatron_config.params_dtype)
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size, **placed)
        self.layer_norm = torch.nn.LayerNorm(config.hidden_size, eps=config.layernorm_eps, **placed)
        rows = config.padded_vocab_size // mesh.tp_size
        self.bias = torch.nn.Parameter(torch.zeros(rows, **placed))
        mark_split(self.bias, 0)
        self.shard = VocabularyShard(mesh.tp_rank * rows, mesh.groups.tp, mesh.tp_size)
        self.word_embeddings = None
        if not mesh.is_first_stage:
            self.word_embeddings = torch.nn.Parameter(torch.empty(rows, config.hidden_size, **placed))
            mark_shared_embedding(self.word_embeddings)
            self.word_embeddings.shared = True  # counted once in the gradient's norm, on the first stage
        row_ids = torch.arange(rows) + mesh.tp_rank * rows
        is_padding = row_ids >= config.vocab_size
        self.num_padded_rows = min(rows, max(0, (mesh.tp_rank + 1) * rows - config.vocab_size))
        self.register_buffer("is_padding_row", is_padding.to(mesh.device.torch_device), persistent=False)

    def forward(self, x_MH: torch.Tensor, word_embeddings_VH: torch.Tensor, targets_M: torch.Tensor | None = None) -> torch.Tensor:
        """The logits, or of targets the negative log-likelihoods (nats), summed; IGNORE_INDEX is none.

        word_embeddings_VH: this rank's rows. Padded vocabulary rows get -inf: they take no part in the softmax. With targets the
        logits are never kept in fp32.
        """
        x_MH = self.layer_norm(F.gelu(self.dense(x_MH)))
        bias = self.bias.masked_fill(self.is_padding_row, float("-inf")) if self.num_padded_rows else self.bias
        if targets_M is not None:
            return linear_cross_entropy(x_MH, word_embeddings_VH, bias, targets_M, self.shard, self.loss_kernels)
        return linear_with_grad_accumulation_and_async_allreduce(
            input=x_MH,
            weight=word_embeddings_VH,
            bias=bias,
            gradient_accumulation_fusion=False,
            allreduce_dgrad=self.mesh.tp_size > 1,
            sequence_parallel=False,
            tp_group=self.mesh.groups.tp,
        )
