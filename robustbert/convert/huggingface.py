"""Hugging Face's RobertaForMaskedLM: names of its tensors, its config.json, and the folder that holds both.

A whole model here is a dict of named fp32 tensors on the CPU, as RobertaStage names them on one process.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from robustbert.config import ConfigError, ModelConfig
from robustbert.convert.errors import ConversionError
from robustbert.convert.naming import TOKEN_TYPES, Naming
from robustbert.convert.whole_model import WholeModel
from robustbert.data.tokenizer import Tokenizer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
NAMING = Naming(
    outer={
        "embeddings.word_embeddings.weight": "roberta.embeddings.word_embeddings.weight",
        "embeddings.position_embeddings.weight": "roberta.embeddings.position_embeddings.weight",
        "embeddings.layer_norm.weight": "roberta.embeddings.LayerNorm.weight",
        "embeddings.layer_norm.bias": "roberta.embeddings.LayerNorm.bias",
        "lm_head.dense.weight": "lm_head.dense.weight",
        "lm_head.dense.bias": "lm_head.dense.bias",
        "lm_head.layer_norm.weight": "lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias": "lm_head.layer_norm.bias",
        "lm_head.bias": "lm_head.bias",
    },
    # RobertaForMaskedLM ignores these, RobertaModel takes the pooler.
    next_sentence={
        f"next_sentence_head.{ours}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in (("pooler", "roberta.pooler.dense"), ("classifier", "cls.seq_relationship"))
        for kind in ("weight", "bias")
    },
    token_types=f"roberta.{TOKEN_TYPES}",
    layer="roberta.encoder.layer.{}.",
    layer_modules={
        "attention.output": "attention.output.dense",
        "attention_layer_norm": "attention.output.LayerNorm",
        "ffn.up": "intermediate.dense",
        "ffn.down": "output.dense",
        "ffn_layer_norm": "output.LayerNorm",
    },
    qkv=("attention.self.query", "attention.self.key", "attention.self.value"),
)
# Tied to another tensor, of which it must be a copy; and buffers that hold no weights.
_TIED = {
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}
_BUFFERS = ("roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids")


def to_huggingface(state: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Our whole model as the state dict of RobertaForMaskedLM; padded vocabulary rows are left out.

    RobertaForMaskedLM always adds a token type; where our model has none it becomes a row of zeros.
    """
    return {NAMING.token_types: torch.zeros(1, config.hidden_size)} | NAMING.to_theirs(state, config)


def from_huggingface(
    theirs: dict[str, torch.Tensor], config: ModelConfig, file: Path | str = "the model"
) -> dict[str, torch.Tensor]:
    """The state dict of RobertaForMaskedLM as our whole model; the vocabulary is padded with zero rows.

    ConversionError names the file and the tensor that is missing or has another shape, or is not tied as ours is.
    """
    for name, tied_to in _TIED.items():
        if name in theirs and tied_to in theirs and not theirs[name].equal(theirs[tied_to]):
            raise ConversionError(f"{file}: {name} differs from {tied_to}; only a model whose head is tied can be converted")
    return NAMING.from_theirs(theirs, config, file)


def read_huggingface(folder: Path) -> tuple[WholeModel, list[str]]:
    """RobertaForMaskedLM from config.json and safetensors, sharded or not (never a pickle), and notes on what is lost.

    ConversionError for what is no such model.
    """
    theirs = _read_weights(folder)
    try:
        config = model_config_of(_read_config(folder / CONFIG), theirs)
    except (ConversionError, ConfigError) as error:
        raise ConversionError(f"{folder / CONFIG}: {error}") from None
    except (KeyError, TypeError) as error:
        raise ConversionError(f"{folder / CONFIG}: is no configuration of a RoBERTa ({error})") from None
    whole = WholeModel(config, from_huggingface(theirs, config, folder))
    notes = [f"{dtype} weights are widened to fp32, which is exact" for dtype in _narrow_types(theirs)]
    lost = [name for name in NAMING.unused(theirs, config) if name not in (*_TIED, *_BUFFERS)]
    if lost:
        notes.append(f"not carried over, for a masked language model has no place for it: {', '.join(lost)}")
    return whole, notes


def write_huggingface(folder: Path, whole: WholeModel, tokenizer: Tokenizer) -> None:
    """config.json, safetensors and tokenizer files that transformers reads with from_pretrained."""
    tokenizer.save(folder)
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.eos_id,
    }
    config = huggingface_config(whole.config, special_ids)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file(to_huggingface(whole.state, whole.config), folder / WEIGHTS, metadata={"format": "pt"})


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

    Where its token type embedding is one row of zeros, as in the released models, ours has none.
    ConversionError for what is no RoBERTa (another model_type, activation or position scheme).
    """
    for key, wanted in (("model_type", "roberta"), ("hidden_act", "gelu")):
        if huggingface.get(key) != wanted:
            raise ConversionError(f"its {key} {huggingface.get(key)!r} cannot be converted, only {wanted!r}")
    if huggingface.get("position_embedding_type", "absolute") != "absolute":
        raise ConversionError("only absolute position embeddings can be converted, its own are others")
    pad_id = 1 if huggingface.get("pad_token_id") is None else huggingface["pad_token_id"]
    token_types_TH = theirs.get(NAMING.token_types)
    has_token_types = token_types_TH is not None and (len(token_types_TH) > 1 or bool(token_types_TH.any()))
    has_next_sentence_head = all(name in theirs for name in NAMING.next_sentence.values())
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


def _read_config(path: Path) -> dict:
    from transformers import RobertaConfig

    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        if given.get("model_type") != "roberta":
            return given
        return RobertaConfig.from_dict(given).to_dict()  # with the values that it leaves to transformers
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConversionError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None


def read_tensors(folder: Path, names: list[str]) -> list[torch.Tensor] | None:
    """Some tensors of a folder's safetensors in fp32; None where one of them is not there."""
    found = {}
    for path in _weight_files(folder):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name).float() for name in file.keys() if name in names}
    return [found[name] for name in names] if all(name in found for name in names) else None


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    theirs = {}
    for path, expected in _weight_files(folder).items():
        theirs |= _load(path)
        absent = next((name for name in expected if name not in theirs), None)
        if absent is not None:
            raise ConversionError(f"{path}: the tensor {absent} is missing, which {INDEX} names")
    return theirs


def _weight_files(folder: Path) -> dict[Path, list[str]]:
    """The files of safetensors, and the tensors that an index expects in each."""
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: []}
    if not (folder / INDEX).exists():
        raise ConversionError(
            f"{folder} has no {WEIGHTS}; save the model with save_pretrained(..., safe_serialization=True) first"
        )
    files: dict[Path, list[str]] = {}
    try:
        for name, shard in json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].items():
            if Path(shard).name != shard:
                raise ConversionError(f"{folder / INDEX}: names {shard!r}, which is no file of its own folder")
            files.setdefault(folder / shard, []).append(name)
    except (OSError, KeyError, AttributeError, TypeError, json.JSONDecodeError):
        raise ConversionError(f"{folder / INDEX}: cannot be read as an index of safetensors; it is damaged") from None
    return files


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"{path}: cannot be read ({error}); it is cut off or damaged") from None


def _narrow_types(theirs: dict[str, torch.Tensor]) -> list[str]:
    types = {tensor.dtype for tensor in theirs.values() if tensor.is_floating_point()}
    return sorted(str(dtype).removeprefix("torch.") for dtype in types - {torch.float32})
