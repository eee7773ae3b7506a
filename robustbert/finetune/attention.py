"""The encoders of transformers attend by pretraining's kernels: on a GPU rows cut into segments, on a CPU rows of known lengths; no mask made.

transformers from 5.0 on asks two functions for that, by a name: one makes of the padding mask (R, S) what every layer is given,
once a forward pass, the other attends. Earlier versions, and encoders that were not checked, keep scaled_dot_product_attention.
R rows, S tokens a row, T = R * S, A heads, D head size.
"""

import functools
import sys

import torch

from robustbert.model.attention import BLOCKED, EFFICIENT, FLASH, SDPA, Rows, attend, attend_to_segments, choose_kernel, describe_rows

NAMES = {FLASH: "robustbert_fa", EFFICIENT: "robustbert_me", BLOCKED: "robustbert_cpu"}  # transformers looks for packages if a name has "flash" in it
# Encoders whose attention is softmax(q k^T / sqrt(D)) v over all of a row, without a position bias, a window or a cache
_CHECKED = frozenset({"roberta", "bert", "xlm-roberta", "camembert", "electra", "distilbert"})
_INTERFACE = ("ALL_ATTENTION_FUNCTIONS", "create_bidirectional_mask")


def attend_in_segments(model: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Have a model of transformers attend in segments if the device has a kernel for it; whether it does from now on.

    dtype: what the model computes in on the device, by autocast or by itself. Padding must be on the right. What save_pretrained
    writes is not changed.
    """
    config, encoder = model.config, model.base_model
    if config.model_type not in _CHECKED or getattr(config, "is_decoder", False) or not _has_interface(encoder):
        return False
    kernel = choose_kernel(device, dtype, config.hidden_size // config.num_attention_heads)
    if kernel == SDPA:
        return False
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAMES[kernel], functools.partial(attention, kernel=kernel))
    AttentionMaskInterface.register(NAMES[kernel], functools.partial(segments, kernel=kernel))
    encoder.set_attn_implementation(NAMES[kernel])
    return encoder.config._attn_implementation == NAMES[kernel]


def _has_interface(encoder: torch.nn.Module) -> bool:
    """Whether the encoder's own code asks the interfaces for its attention and its mask."""
    return all(name in vars(sys.modules[type(encoder).__module__]) for name in _INTERFACE)


def segments(*, attention_mask: torch.Tensor | None = None, kernel: str, **others) -> torch.Tensor | None:
    """What all layers are given for a mask: segments_N, or on a CPU lengths_R; None without a padding mask.

    attention_mask: bool (R, S), False on padding. others: what masks of other kinds are made of.
    """
    if attention_mask is None:
        return None
    rows = describe_rows(attention_mask.sum(1), *attention_mask.shape, kernel, attention_mask.device)
    return rows.lengths_B if kernel == BLOCKED else rows.segments_N


def attention(module, query_RASD, key_RASD, value_RASD, described, dropout=0.0, scaling=None, *, kernel: str, **others):
    """One layer's attention: (R, S, A, D), and None for the weights. described: what `segments` gave.

    The heads are views of (R, S, A, D), as the projections give them: no layout is copied.
    """
    num_rows, _, length, head_size = query_RASD.shape
    assert scaling in (None, head_size**-0.5), f"the kernels scale by {head_size**-0.5}, not by {scaling}"
    query, key, value = (heads.transpose(1, 2).flatten(0, 1) for heads in (query_RASD, key_RASD, value_RASD))
    if kernel == BLOCKED:
        context_TAD = attend(torch.stack([query, key, value], 2), Rows(num_rows, length, lengths_B=described), dropout, kernel)
    else:
        if described is None:
            described = describe_rows(None, num_rows, length, kernel, query_RASD.device).segments_N
        context_TAD = attend_to_segments(query, key, value, Rows(num_rows, length, segments_N=described), dropout, kernel)
    return context_TAD.view(num_rows, length, *context_TAD.shape[1:]), None
