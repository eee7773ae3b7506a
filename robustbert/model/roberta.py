"""RobertaStage: the part of RoBERTa that one pipeline stage and one tensor-parallel rank hold.

On one process it is the whole model. B batch, S sequence, T = B * S tokens (row after row), H hidden, M masked positions, V padded
vocabulary, /tp = split over tensor-parallel ranks.
"""

from functools import partial
from types import MethodType

import torch
from megatron.core.enums import ModelType
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from megatron.core.tensor_parallel.random import checkpoint as recompute_backward
from megatron.core.transformer.module import MegatronModule

from robustbert.config import ModelConfig, ParallelConfig
from robustbert.model.attention import describe_rows
from robustbert.model.embeddings import Embeddings
from robustbert.model.fusion import Fusion
from robustbert.model.layer import EncoderLayer
from robustbert.model.mlm_head import MaskedLanguageModelHead
from robustbert.model.nsp_head import NextSentenceHead
from robustbert.parallel.mesh import Mesh

WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"
TIED_WORD_EMBEDDINGS = "lm_head.word_embeddings"


class RobertaStage(MegatronModule):
    """Layers are named by their number in the whole model, so a parameter has one name at every layout."""

    def __init__(
        self, config: ModelConfig, parallel: ParallelConfig, megatron_config, mesh: Mesh, attention_kernel: str, fusion: Fusion
    ):
        super().__init__(config=megatron_config)
        self.model_config = config
        self.mesh = mesh
        self.recompute = parallel.recompute
        self.attention_kernel, self.fusion = attention_kernel, fusion
        # megatron-core asks a stage for these four.
        self.model_type = ModelType.encoder_or_decoder
        self.pre_process, self.post_process = mesh.is_first_stage, mesh.is_last_stage
        self.share_embeddings_and_output_weights = True
        self.embeddings = Embeddings(config, megatron_config, mesh) if mesh.is_first_stage else None
        layers_per_stage = config.num_layers // mesh.pp_size
        first_layer = mesh.pp_rank * layers_per_stage
        self.layers = torch.nn.ModuleDict(
            {
                str(first_layer + i): EncoderLayer(config, megatron_config, mesh, attention_kernel, fusion)
                for i in range(layers_per_stage)
            }
        )
        forward = fusion.compile(EncoderLayer.forward)  # once for all of them
        for layer in self.layers.values():
            layer.forward = MethodType(forward, layer)
        self.lm_head = None
        if mesh.is_last_stage:
            self.lm_head = MaskedLanguageModelHead(config, megatron_config, mesh, fusion.loss_kernels)
        has_pairs = mesh.is_last_stage and config.next_sentence_head
        self.next_sentence_head = NextSentenceHead(config, megatron_config) if has_pairs else None
        self._input_T1H = None

    def set_input_tensor(self, tensors) -> None:
        """Called by the pipeline's schedule with the activations of the stage before."""
        self._input_T1H = tensors[0] if isinstance(tensors, list) else tensors

    def shared_embedding_or_output_weight(self) -> torch.Tensor | None:
        """This process' copy of the word embedding, V/tp x H; None on a middle stage."""
        if self.embeddings is not None:
            return self.embeddings.word_embeddings.weight
        return self.lm_head.word_embeddings if self.lm_head is not None else None

    def forward(
        self, tokens_BS, lengths_B=None, positions_M=None, token_types_BS=None, targets_M=None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The encoder, and on the last stage the head.

        tokens_BS: int, padded on the right; lengths_B: int, without the padding, None where there is none;
        positions_M: int, flat (b * S + s) positions to predict, None for all of them in that order;
        token_types_BS: int, None for all zeros; targets_M: int, what is to be predicted, IGNORE_INDEX for nothing.
        Returns x_T1H (T/tp with sequence parallelism); on the last stage logits_MV/tp, with targets their summed loss in its
        place; with a next-sentence head a pair of that and next_sentence_B2.
        """
        x_T1H = self.encode(tokens_BS, lengths_B, token_types_BS)
        if self.lm_head is None:
            return x_T1H
        x_TH = self.gather(x_T1H).squeeze(1)
        x_MH = x_TH if positions_M is None else x_TH.index_select(0, positions_M)
        predicted = self.lm_head(x_MH, self.shared_embedding_or_output_weight(), targets_M)
        if self.next_sentence_head is None:
            return predicted
        first_BH = x_TH.view(*tokens_BS.shape, -1)[:, 0]
        return predicted, self.next_sentence_head(first_BH)

    def encode(self, tokens_BS, lengths_B=None, token_types_BS=None) -> torch.Tensor:
        """This stage's layers over the tokens (first stage) or the activations of the stage before: x_T1H."""
        if self.embeddings is not None:
            x_T1H = self.embeddings(tokens_BS, token_types_BS)
        else:
            x_T1H = self._input_T1H
        rows = describe_rows(lengths_B, *tokens_BS.shape, self.attention_kernel, tokens_BS.device)
        for layer in self.layers.values():
            if self.recompute == "full" and self.training:
                x_T1H = recompute_backward(partial(layer, rows=rows), False, x_T1H)
            else:
                x_T1H = layer(x_T1H, rows)
        return x_T1H

    def gather(self, x_T1H: torch.Tensor) -> torch.Tensor:
        """The activations of all tokens: T from T/tp with sequence parallelism."""
        if not self.mesh.sequence_parallel:
            return x_T1H
        # What follows is computed in whole on every rank, so its gradients are whole, too.
        return gather_from_sequence_parallel_region(x_T1H, tensor_parallel_output_grad=False, group=self.mesh.groups.tp)

    def named_shards(self):
        """(name in the whole model, this rank's parameter), the tied copy under the embedding's name."""
        for name, parameter in self.named_parameters():
            yield (WORD_EMBEDDINGS if name == TIED_WORD_EMBEDDINGS else name), parameter

