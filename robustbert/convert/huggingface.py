"""Hugging Face's RobertaForMaskedLM: names and layout of its tensors, its config.json, to and from ours.

A whole model here is a dict of named fp32 tensors on the CPU, as RobertaStage names them on one process.
H hidden, A attention heads, D head size, V vocabulary (padded on our side, not on theirs).
"""

import torch

from robustbert.config import ModelConfig
from robustbert.model.roberta import WORD_EMBEDDINGS

# Ours on the left; {} is the layer's number. Query, key and value are handled apart.
_OUTER_NAMES = {
    "embeddings.word_embeddings.weight": "roberta.embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight": "roberta.embeddings.position_embeddings.weight",
    "embeddings.layer_norm.weight": "roberta.embeddings.LayerNorm.weight",
    "embeddings.layer_norm.bias": "roberta.embeddings.LayerNorm.bias",
    "lm_head.dense.weight": "lm_head.dense.weight",
    "lm_head.dense.bias": "lm_head.dense.bias",
    "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
    "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
    "lm_head.bias": "lm_head.bias",
}
_LAYER_MODULES = {
    "attention.output": "attention.output.dense",
    "attention_layer_norm": "attention.output.LayerNorm",
    "ffn.up": "intermediate.dense",
    "ffn.down": "output.dense",
    "ffn_layer_norm": "output.LayerNorm",
}
_QKV = ("query", "key", "value")
_TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
HUGGINGFACE_TOKEN_TYPES = f"roberta.{_TOKEN_TYPES}"
# Of a model with a next-sentence head; RobertaForMaskedLM ignores them, RobertaModel takes the pooler.
_NEXT_SENTENCE_NAMES = {
    f"next_sentence_head.{ours}.{kind}": f"{theirs}.{kind}"
    for ours, theirs in (("pooler", "roberta.pooler.dense"), ("classifier", "cls.seq_relationship"))
    for kind in ("weight", "bias")
}
_VOCAB_ROWS = (WORD_EMBEDDINGS, "lm_head.bias")


def to_huggingface(state: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Our whole model as the state dict of RobertaForMaskedLM; padded vocabulary rows are left out.

    RobertaForMaskedLM always adds a token type; where our model has none it becomes a row of zeros.
    """
    theirs = {}
    for ours, name in _names(config).items():
        tensor = state[ours]
        theirs[name] = tensor[: config.vocab_size] if ours in _VOCAB_ROWS else tensor
    for layer in range(config.num_layers):
        for kind in ("weight", "bias"):
            fused = state[f"layers.{layer}.attention.qkv.{kind}"]
            split = fused.view(config.num_attention_heads, 3, -1, *fused.shape[1:])  # (A, 3, D, ...)
            for i, part in enumerate(_QKV):
                theirs[f"roberta.encoder.layer.{layer}.attention.self.{part}.{kind}"] = split[:, i].reshape(
                    -1, *fused.shape[1:]
                )
    token_types = state.get(_TOKEN_TYPES)
    if token_types is None:
        token_types = torch.zeros(1, config.hidden_size)
    theirs[HUGGINGFACE_TOKEN_TYPES] = token_types
    return {name: tensor.contiguous().clone() for name, tensor in theirs.items()}


def from_huggingface(theirs: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """The state dict of RobertaForMaskedLM as our whole model; the vocabulary is padded with zero rows.

    KeyError-free: a missing tensor is a ValueError that names it (for instance a model without an MLM head).
    """
    missing = [name for name in _names(config).values() if name not in theirs]
    if missing:
        raise ValueError(f"the model has no tensor {missing[0]}: it is no RobertaForMaskedLM")
    state = {}
    for ours, name in _names(config).items():
        tensor = theirs[name]
        if ours in _VOCAB_ROWS:
            padded = tensor.new_zeros(config.padded_vocab_size, *tensor.shape[1:])
            padded[: config.vocab_size] = tensor
            tensor = padded
        state[ours] = tensor
    for layer in range(config.num_layers):
        for kind in ("weight", "bias"):
            parts = [theirs[f"roberta.encoder.layer.{layer}.attention.self.{part}.{kind}"] for part in _QKV]
            by_head = [part.view(config.num_attention_heads, -1, *part.shape[1:]) for part in parts]
            state[f"layers.{layer}.attention.qkv.{kind}"] = torch.stack(by_head, 1).reshape(-1, *parts[0].shape[1:])
    if config.num_token_types:
        state[_TOKEN_TYPES] = theirs[HUGGINGFACE_TOKEN_TYPES]
    return {name: tensor.float().contiguous().clone() for name, tensor in state.items()}


def huggingface_config(config: ModelConfig, special_ids: dict[str, int]) -> dict:
    """config.json of the converted model. special_ids: bos_token_id, pad_token_id, eos_token_id."""
    return {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_attention_heads,
        "intermediate_size": config.ffn_hidden_size,
        "hidden_act": "gelu",
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_sequence_length + config.first_position,
        "type_vocab_size": max(1, config.num_token_types),
        "initializer_range": config.init_std,
        "layer_norm_eps": config.layernorm_eps,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **special_ids,
    }


def model_config_of(huggingface: dict, theirs: dict[str, torch.Tensor]) -> ModelConfig:
    """Our ModelConfig for a Hugging Face config.json (as a dict) and the state dict beside it.

    Where its token type embedding is all zeros, as in the released models, ours has none.
    ValueError for what is no RoBERTa (another model_type, activation or position scheme).
    """
    for key, wanted in (("model_type", "roberta"), ("hidden_act", "gelu")):
        if huggingface.get(key) != wanted:
            raise ValueError(f"config.json has {key} {huggingface.get(key)!r}; only {wanted!r} can be converted")
    if huggingface.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError("only absolute position embeddings can be converted")
    pad_id = huggingface.get("pad_token_id", 1)
    token_types_WH = theirs.get(HUGGINGFACE_TOKEN_TYPES)
    has_token_types = token_types_WH is not None and bool(token_types_WH.any())
    has_next_sentence_head = all(name in theirs for name in _NEXT_SENTENCE_NAMES.values())
    return ModelConfig(
        num_layers=huggingface["num_hidden_layers"],
        hidden_size=huggingface["hidden_size"],
        ffn_hidden_size=huggingface["intermediate_size"],
        num_attention_heads=huggingface["num_attention_heads"],
        max_sequence_length=huggingface["max_position_embeddings"] - pad_id - 1,
        dropout=huggingface.get("hidden_dropout_prob", 0.1),
        attention_dropout=huggingface.get("attention_probs_dropout_prob", 0.1),
        vocab_size=huggingface["vocab_size"],
        layernorm_eps=huggingface.get("layer_norm_eps", 1e-12),
        init_std=huggingface.get("initializer_range", 0.02),
        num_token_types=huggingface.get("type_vocab_size", 1) if has_token_types else 0,
        next_sentence_head=has_next_sentence_head,
        pad_id=pad_id,
    )


def _names(config: ModelConfig) -> dict[str, str]:
    """Our names to theirs, but for query, key, value and token types."""
    names = _OUTER_NAMES | (_NEXT_SENTENCE_NAMES if config.next_sentence_head else {})
    for layer in range(config.num_layers):
        for ours, theirs in _LAYER_MODULES.items():
            for kind in ("weight", "bias"):
                names[f"layers.{layer}.{ours}.{kind}"] = f"roberta.encoder.layer.{layer}.{theirs}.{kind}"
    return names
