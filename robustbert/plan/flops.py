"""Floating-point operations of one operator, by its arguments' shapes: two a multiply-add, matrix products only.

torch.utils.flop_counter knows the products. Attention is counted here, because its formulas there read cumulative lengths,
which fake tensors do not have, and leave out the CPU's operator.
B batch, A attention heads, S sequence, D head size, T tokens of all sequences.
"""

import math

import torch
from torch.utils.flop_counter import flop_registry

_PRODUCTS = {"forward": (1, 1), "backward": (3, 2)}  # (over query's and key's D, over value's D); backward repeats the scores
# By the layout of query, key and value where no cumulative lengths are given.
_ATTENTION_BASD = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_cudnn_attention",
)
_ATTENTION_BSAD = ("_flash_attention", "_efficient_attention")


def operator_flops(function: torch._ops.OpOverload, args: tuple, kwargs: dict, result) -> float:
    """Operations of one call; 0 for an operator without products."""
    name, direction = _direction(function.overloadpacket.__name__)
    if name in _ATTENTION_BASD or name in _ATTENTION_BSAD:
        schema = function._schema.arguments
        named = {argument.name: value for argument, value in zip(schema, args)} | kwargs
        return _attention_flops(named, direction, sequence_dim=2 if name in _ATTENTION_BASD else 1)
    count = flop_registry.get(function.overloadpacket)
    return float(count(*args, **kwargs, out_val=result)) if count else 0.0


def _direction(name: str) -> tuple[str, str]:
    """`_flash_attention_backward` -> (`_flash_attention`, `backward`)."""
    for direction in _PRODUCTS:
        if name.endswith(f"_{direction}"):
            return name.removesuffix(f"_{direction}"), direction
    return name, "forward"


def _attention_flops(arguments: dict, direction: str, sequence_dim: int) -> float:
    """Every query times every key of its sequence; masks save nothing.

    With cumulative lengths, query is (T, A, D) or (1, T, A, D) and each token is taken to attend to the longest sequence:
    exact where a row's tokens and its padding are two sequences that fill the row together and the kernel works by rows.
    """
    query, key, value = arguments["query"], arguments["key"], arguments["value"]
    if arguments.get("cum_seq_q") is not None or arguments.get("cu_seqlens_q") is not None:
        longest = next((n for n in (arguments.get("max_k"), arguments.get("max_seqlen_k")) if n), None)
        num_keys = min(longest or key.shape[-3], key.shape[-3])
    else:
        num_keys = key.shape[sequence_dim]
    scores = math.prod(query.shape[:-1]) * num_keys
    over_key, over_value = _PRODUCTS[direction]
    return 2.0 * scores * (over_key * query.shape[-1] + over_value * value.shape[-1])
