"""A RoBERTa's tensors under another library's names: what they are called there, their shapes, and both directions.

Ours fuses query, key and value head by head and pads the vocabulary; others have three tensors and no padding.
H hidden, F feed-forward, V vocabulary, P rows of the position embedding, T token types, A attention heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from robustbert.config import ModelConfig
from robustbert.convert.errors import ConversionError
from robustbert.model.roberta import WORD_EMBEDDINGS

TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
_VOCAB_ROWS = (WORD_EMBEDDINGS, "lm_head.bias")
# Our modules, and the shape of their weight; a bias has its first dimension.
_SHAPES = {
    "embeddings.word_embeddings": "VH",
    "embeddings.position_embeddings": "PH",
    "embeddings.token_type_embeddings": "TH",
    "embeddings.layer_norm": "H",
    "lm_head.dense": "HH",
    "lm_head.layer_norm": "H",
    "lm_head": "V",
    "next_sentence_head.pooler": "HH",
    "next_sentence_head.classifier": "2H",
    "attention.output": "HH",
    "attention_layer_norm": "H",
    "ffn.up": "FH",
    "ffn.down": "HF",
    "ffn_layer_norm": "H",
    "attention.qkv": "HH",  # of each part
}


@dataclass(frozen=True)
class Naming:
    """outer, next_sentence: our tensors to theirs, but for the layers. token_types: theirs, None where they have none.

    layer: what precedes the modules of a layer, {} its number. layer_modules: our modules of a layer to theirs. qkv: their three modules.
    """

    outer: dict[str, str]
    next_sentence: dict[str, str]
    token_types: str | None
    layer: str
    layer_modules: dict[str, str]
    qkv: tuple[str, str, str]

    def names(self, config: ModelConfig) -> dict[str, str]:
        """Our names to theirs, but for query, key, value and token types."""
        names = self.outer | (self.next_sentence if config.next_sentence_head else {})
        for layer in range(config.num_layers):
            for ours, theirs in self.layer_modules.items():
                for kind in ("weight", "bias"):
                    names[f"layers.{layer}.{ours}.{kind}"] = f"{self.layer.format(layer)}{theirs}.{kind}"
        return names

    def qkv_names(self, config: ModelConfig) -> dict[str, list[str]]:
        """Our fused tensors to their three."""
        return {
            f"layers.{layer}.attention.qkv.{kind}": [f"{self.layer.format(layer)}{part}.{kind}" for part in self.qkv]
            for layer in range(config.num_layers)
            for kind in ("weight", "bias")
        }

    def to_theirs(self, state: Mapping[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
        """Our whole model under their names, each tensor by itself; padded vocabulary rows are left out."""
        theirs = {}
        for ours, name in self.names(config).items():
            theirs[name] = state[ours][: config.vocab_size] if ours in _VOCAB_ROWS else state[ours]
        for ours, names in self.qkv_names(config).items():
            fused = state[ours]
            split = fused.view(config.num_attention_heads, 3, -1, *fused.shape[1:])  # (A, 3, H/A, ...)
            for i, name in enumerate(names):
                theirs[name] = split[:, i].reshape(-1, *fused.shape[1:])
        if self.token_types is not None and TOKEN_TYPES in state:
            theirs[self.token_types] = state[TOKEN_TYPES]
        return {name: tensor.contiguous().clone() for name, tensor in theirs.items()}

    def from_theirs(
        self, theirs: Mapping[str, torch.Tensor], config: ModelConfig, file: Path | str
    ) -> dict[str, torch.Tensor]:
        """Their tensors as our whole model in fp32 (fp16 and bf16 widen exactly); the vocabulary is padded with zero rows.

        ConversionError that names the file and the tensor which is missing or has another shape.
        """
        state = {}
        for ours, name in self.names(config).items():
            tensor = _checked(theirs, name, _shape(ours, config), file)
            if ours in _VOCAB_ROWS:
                padded = torch.zeros(config.padded_vocab_size, *tensor.shape[1:])
                padded[: config.vocab_size] = tensor
                tensor = padded
            state[ours] = tensor
        for ours, names in self.qkv_names(config).items():
            parts = [_checked(theirs, name, _shape(ours, config), file) for name in names]
            by_head = [part.reshape(config.num_attention_heads, -1, *part.shape[1:]) for part in parts]
            state[ours] = torch.stack(by_head, 1).reshape(-1, *parts[0].shape[1:])
        if config.num_token_types and self.token_types is not None:
            state[TOKEN_TYPES] = _checked(theirs, self.token_types, _shape(TOKEN_TYPES, config), file)
        return {name: tensor.to(torch.float32, copy=True).contiguous() for name, tensor in state.items()}

    def missing(self, theirs: Mapping[str, torch.Tensor], config: ModelConfig) -> list[str]:
        """Their tensors that ours needs and that are not there."""
        parts = [name for names in self.qkv_names(config).values() for name in names]
        return [name for name in (*self.names(config).values(), *parts) if name not in theirs]

    def unused(self, theirs: Mapping[str, torch.Tensor], config: ModelConfig) -> list[str]:
        """Their tensors that ours has no place for."""
        used = {*self.names(config).values(), *(name for names in self.qkv_names(config).values() for name in names)}
        return [name for name in theirs if name not in used and name != self.token_types]


def _checked(theirs: Mapping[str, torch.Tensor], name: str, shape: tuple[int, ...], file: Path | str) -> torch.Tensor:
    tensor = theirs.get(name)
    if tensor is None:
        raise ConversionError(f"{file}: the tensor {name} is missing: it is cut off or no masked language model of RoBERTa")
    if tuple(tensor.shape) != shape:
        raise ConversionError(
            f"{file}: the tensor {name} has the shape {tuple(tensor.shape)}, the configuration beside it says {shape}"
        )
    if not tensor.is_floating_point():
        raise ConversionError(f"{file}: the tensor {name} holds {tensor.dtype}; only floating point can be converted")
    return tensor


def _shape(name: str, config: ModelConfig) -> tuple[int, ...]:
    sizes = {
        "H": config.hidden_size,
        "F": config.ffn_hidden_size,
        "V": config.vocab_size,
        "P": config.max_sequence_length + config.first_position,
        "T": config.num_token_types,
        "2": 2,
    }
    module, _, kind = name.rpartition(".")
    if module.startswith("layers."):
        module = module.split(".", 2)[2]
    dims = _SHAPES[module]
    return tuple(sizes[dim] for dim in (dims if kind == "weight" else dims[0]))
