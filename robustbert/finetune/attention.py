"""The encoders of transformers attend by pretraining's kernels on a GPU: rows cut into segments, no mask made.

transformers from 5.0 on asks two functions for that, by a name: one makes of the padding mask (R, S) what every layer is given,
once a forward pass, the other attends. Earlier versions, and encoders that were not checked, keep scaled_dot_product_attention.
R rows, S tokens a row, T = R * S, A heads, D head size.
"""

import math
import sys

import torch

from robustbert.model.attention import SDPA, Rows, attend_to_segments, choose_kernel, describe_rows

NAME = "robustbert_segments"
# Encoders whose attention is softmax(q k^T / sqrt(D)) v over all of a row, without a position bias, a window or a cache
_CHECKED = frozenset({"roberta", "bert", "xlm-roberta", "camembert", "electra", "distilbert"})
_INTERFACE = ("ALL_ATTENTION_FUNCTIONS", "create_bidirectional_mask")


def attend_in_segments(model: torch.nn.Module) -> bool:
    """Have a model of transformers attend in segments wherever a variable-length kernel suits; whether it does.

    Padding must be on the right. What save_pretrained writes is not changed.
    """
    encoder = model.base_model
    if model.config.model_type not in _CHECKED or getattr(model.config, "is_decoder", False) or not _has_interface(encoder):
        return False
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, segments_or_mask)
    encoder.set_attn_implementation(NAME)
    return encoder.config._attn_implementation == NAME


def _has_interface(encoder: torch.nn.Module) -> bool:
    """Whether the encoder's own code asks the interfaces for its attention and its mask."""
    return all(name in vars(sys.modules[type(encoder).__module__]) for name in _INTERFACE)


def segments_or_mask(*, attention_mask: torch.Tensor | None = None, config, dtype: torch.dtype, **others):
    """What the layers are given for the rows: segments_N where a variable-length kernel suits, otherwise SDPA's mask.

    attention_mask: bool (R, S), False on padding. others: what only SDPA's mask takes.
    """
    from transformers.masking_utils import sdpa_mask

    kernel = SDPA
    if attention_mask is not None:
        kernel = choose_kernel(attention_mask.device, dtype, config.hidden_size // config.num_attention_heads)
    if kernel == SDPA:
        return sdpa_mask(attention_mask=attention_mask, config=config, dtype=dtype, **others)
    return describe_rows(attention_mask.sum(1), *attention_mask.shape, kernel, attention_mask.device).segments_N


def attention(module, query_RASD, key_RASD, value_RASD, mask, dropout: float = 0.0, scaling: float | None = None, **others):
    """One layer's attention: (R, S, A, D), and None for the weights. mask: what segments_or_mask gave.

    The heads are views of (R, S, A, D), as the projections give them: no layout is copied.
    """
    if mask is None or mask.dim() != 1:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query_RASD, key_RASD, value_RASD, mask, dropout=dropout, scaling=scaling, **others)
    num_rows, _, length, head_size = query_RASD.shape
    assert scaling is None or math.isclose(scaling, head_size**-0.5), f"attention is scaled by {scaling}"
    query, key, value = (heads.transpose(1, 2).flatten(0, 1) for heads in (query_RASD, key_RASD, value_RASD))
    # Under autocast the projections decide the precision, so the kernel is chosen here
    kernel = choose_kernel(query.device, query.dtype, head_size)
    context_TAD = attend_to_segments(query, key, value, Rows(num_rows, length, segments_N=mask), dropout, kernel)
    return context_TAD.view(num_rows, length, *context_TAD.shape[1:]), None
