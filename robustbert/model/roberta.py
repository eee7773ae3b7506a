"""RobertaStage: the part of RoBERTa that one pipeline stage and one tensor-parallel rank hold.

On one process it is the whole model. B batch, S sequence, H hidden, M masked positions, V padded vocabulary,
/tp = split over tensor-parallel ranks.
"""

from typing import NamedTuple

import torch
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.tensor_parallel.random import checkpoint as recompute_backward
from megatron.core.transformer.module import MegatronModule

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.model.embeddings import Embeddings
from robustbert.model.layer import EncoderLayer
from robustbert.model.mlm_head import MaskedLanguageModelHead
from robustbert.model.nsp_head import NextSentenceHead
from robustbert.parallel.mesh import Mesh

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
TIED_WORD_EMBEDDINGS = "lm_head.word_embeddings"


class PairLogits(NamedTuple):
    """What the last stage of a model with a next-sentence head gives: logits_MV/tp and next_sentence_B2."""

    logits_MV: torch.Tensor
    next_sentence_B2: torch.Tensor


class RobertaStage(MegatronModule):
    """Layers are named by their number in the whole model, so a parameter has one name at every layout."""

    def __init__(self, config: ModelConfig, parallel: ParallelConfig, megatron_config, mesh: Mesh):
        super().__init__(config=megatron_config)
        self.model_config = config
        self.mesh = mesh
        self.recompute = parallel.recompute
        # megatron-core asks a stage for these four.
        self.model_type = ModelType.encoder_or_decoder
        self.pre_process, self.post_process = mesh.is_first_stage, mesh.is_last_stage
        self.share_embeddings_and_output_weights = True
        self.embeddings = Embeddings(config, megatron_config, mesh) if mesh.is_first_stage else None
        layers_per_stage = config.num_layers // mesh.pp_size
        first_layer = mesh.pp_rank * layers_per_stage
        self.layers = torch.nn.ModuleDict(
            {str(first_layer + i): EncoderLayer(config, megatron_config, mesh) for i in range(layers_per_stage)}
        )
        self.lm_head = MaskedLanguageModelHead(config, megatron_config, mesh) if mesh.is_last_stage else None
        has_pairs = mesh.is_last_stage and config.next_sentence_head
        self.next_sentence_head = NextSentenceHead(config, megatron_config) if has_pairs else None
        self._input_SBH = None

    def set_input_tensor(self, tensors) -> None:
        """Called by the pipeline's schedule with the activations of the stage before."""
        self._input_SBH = tensors[0] if isinstance(tensors, list) else tensors

    def shared_embedding_or_output_weight(self) -> torch.Tensor | None:
        """This process' copy of the word embedding, V/tp x H; None on a middle stage."""
        if self.embeddings is not None:
            return self.embeddings.word_embeddings.weight
        return self.lm_head.word_embeddings if self.lm_head is not None else None

    def forward(self, tokens_BS, attended_BS=None, positions_M=None, token_types_BS=None) -> torch.Tensor | PairLogits:
        """The encoder, and on the last stage the head.

        tokens_BS: int64; attended_BS: bool, False on padding, None where there is none;
        positions_M: int64, flat (b * S + s) positions to predict, None for all of them in that order;
        token_types_BS: int64, None for all zeros.
        Returns x_SBH (S/tp with sequence parallelism), or on the last stage logits_MV/tp, or PairLogits.
        """
        x_SBH = self.encode(tokens_BS, attended_BS, token_types_BS)
        if self.lm_head is None:
            return x_SBH
        x_SBH = self.gather(x_SBH)
        logits_MV = self.lm_head(select(x_SBH, positions_M), self.shared_embedding_or_output_weight())
        if self.next_sentence_head is None:
            return logits_MV
        return PairLogits(logits_MV, self.next_sentence_head(x_SBH[0]))

    def encode(self, tokens_BS, attended_BS=None, token_types_BS=None) -> torch.Tensor:
        """This stage's layers over the tokens (first stage) or the activations of the stage before."""
        if self.embeddings is not None:
            x_SBH = self.embeddings(tokens_BS, token_types_BS)
        else:
            x_SBH = self._input_SBH
        attended_B11S = None if attended_BS is None else attended_BS[:, None, None, :]
        for layer in self.layers.values():
            if self.recompute == "full" and self.training:
                x_SBH = recompute_backward(layer, False, x_SBH, attended_B11S)
            else:
                x_SBH = layer(x_SBH, attended_B11S)
        return x_SBH

    def gather(self, x_SBH: torch.Tensor) -> torch.Tensor:
        """The activations of whole sequences: S from S/tp with sequence parallelism."""
        if not self.mesh.sequence_parallel:
            return x_SBH
        # What follows is computed in whole on every rank, so its gradients are whole, too.
        return gather_from_sequence_parallel_region(x_SBH, tensor_parallel_output_grad=False, group=self.mesh.groups.tp)

    def named_shards(self):
        """(name in the whole model, this rank's parameter), the tied copy under the embedding's name."""
        for name, parameter in self.named_parameters():
            yield (WORD_EMBEDDINGS if name == TIED_WORD_EMBEDDINGS else name), parameter


def select(x_SBH: torch.Tensor, positions_M: torch.Tensor | None) -> torch.Tensor:
    """The activations at flat positions b * S + s, x_MH; all of them in that order for None."""
    length, batch, hidden = x_SBH.shape
    if positions_M is None:
        return x_SBH.transpose(0, 1).reshape(-1, hidden)
    rows_M = (positions_M % length) * batch + positions_M // length
    return x_SBH.reshape(-1, hidden).index_select(0, rows_M)
