"""Hugging Face's RobertaForMaskedLM: names of its tensors, its config.json, and the folder that holds both.

A whole model here is a dict of named fp32 tensors on the CPU, as RobertaStage names them on one process.
"""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from robustbert.config import ModelConfig
from robustbert.convert.errors import ConversionError
from robustbert.convert.file_modes import share_weights_like
from robustbert.convert.naming import TOKEN_TYPES, Naming
from robustbert.convert.new_head import lacks_head
from robustbert.convert.other_names import TIED
from robustbert.convert.pickles import refuse_stand_in
from robustbert.convert.weight_files import WEIGHTS, read_weights
from robustbert.convert.whole_model import WholeModel
from robustbert.data.tokenizer import Tokenizer

CONFIG = "config.json"
# model_type of config.json, and the class that computes what RobertaForMaskedLM does, under the same names.
FAMILY = {
    "roberta": "RobertaForMaskedLM",
    "xlm-roberta": "XLMRobertaForMaskedLM",
    "camembert": "CamembertForMaskedLM",
}
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
# Buffers that hold no weights.
_BUFFERS = ("roberta.embeddings.position_ids", "roberta.embeddings.token_type_ids")
_BODY = ("roberta.embeddings.", "roberta.encoder.", "lm_head.")  # whatever else is under these changes what the model computes
# Another value of these makes another function. Missing means the first. gelu_python is the exact GELU as well.
_ONLY = {
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
}


def to_huggingface(state: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Our whole model as the state dict of RobertaForMaskedLM; padded vocabulary rows are left out.

    RobertaForMaskedLM always adds a token type; where our model has none it becomes a row of zeros.
    """
    return {NAMING.token_types: torch.zeros(1, config.hidden_size)} | NAMING.to_theirs(state, config)


def from_huggingface(
    theirs: dict[str, torch.Tensor], config: ModelConfig, file: Path | str = "the model"
) -> dict[str, torch.Tensor]:
    """The state dict of RobertaForMaskedLM as our whole model; the vocabulary is padded with zero rows.

    ConversionError names the file and the tensor that is missing or has another shape, has no place in a RoBERTa of this
    configuration, or is not tied as ours is.
    """
    if lacks_head(theirs, NAMING) and NAMING.token_types in theirs:
        raise ConversionError(
            f"{file}: is an encoder without a masked-language-model head (it has no lm_head.dense.weight); --new-head gives it "
            "one, initialised from --seed"
        )
    known = (*TIED, *_BUFFERS, NAMING.token_types)
    stray = [name for name in NAMING.unused(theirs, config) if name.startswith(_BODY) and name not in known]
    missing = NAMING.missing(theirs, config)
    if missing or stray:
        raise ConversionError(f"{file}: {_difference(missing, stray)}")
    for name, tied_to in TIED.items():
        if name in theirs and tied_to in theirs and not theirs[name].equal(theirs[tied_to]):
            raise ConversionError(f"{file}: {name} differs from {tied_to}; only a model whose head is tied can be converted")
    return NAMING.from_theirs(theirs, config, file)


def read_huggingface(
    folder: Path, head: Callable[[ModelConfig], dict[str, torch.Tensor]] | None = None
) -> tuple[WholeModel, list[str]]:
    """RobertaForMaskedLM from config.json and its weights, whatever names they have there, and notes on what is lost.

    head: makes the masked-language-model head, under Hugging Face's names, of an encoder that was saved without one.
    ConversionError for what is no such model.
    """
    with _about(folder / CONFIG):
        given = _read_config(folder / CONFIG)
        _check_function(given)
    theirs, notes = read_weights(folder)
    with _about(folder / CONFIG):
        config = model_config_of(given, theirs)
    if head is not None:
        if not lacks_head(theirs, NAMING):
            raise ConversionError(f"{folder}: has a masked-language-model head (lm_head.*) already; leave out --new-head")
        theirs |= head(config)
    if given.get("tie_word_embeddings") is False and "lm_head.decoder.weight" not in theirs and head is None:
        raise ConversionError(
            f"{folder}: its head is not tied (tie_word_embeddings is false in {CONFIG}), but lm_head.decoder.weight is missing"
        )
    whole = WholeModel(config, from_huggingface(theirs, config, folder))
    if given["model_type"] != "roberta":
        notes.append(f"{FAMILY[given['model_type']]} computes what RobertaForMaskedLM does, and becomes that")
    notes += _widening_notes(theirs)
    lost = [name for name in NAMING.unused(theirs, config) if name not in (*TIED, *_BUFFERS)]
    if lost:
        notes.append(f"not carried over, for a masked language model has no place for it: {', '.join(lost)}")
    return whole, notes


def transformers_config(folder: Path):
    """The folder's configuration as an object of transformers, and the name of the class that computes its model."""
    import transformers

    with _about(folder / CONFIG):
        model_type = _read_config(folder / CONFIG)["model_type"]
        return getattr(transformers, _config_class(model_type)).from_pretrained(folder), FAMILY[model_type]


def write_huggingface(folder: Path, whole: WholeModel, tokenizer: Tokenizer) -> None:
    """config.json, safetensors and tokenizer files that transformers reads with from_pretrained.

    The tokenizer knows the model's length: truncation=True cuts a text to it.
    """
    tokenizer.save(folder)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["model_max_length"] = whole.config.max_sequence_length
    settings_file.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    special_ids = {
        "bos_token_id": tokenizer.bos_id,
        "pad_token_id": tokenizer.pad_id,
        "eos_token_id": tokenizer.eos_id,
    }
    config = huggingface_config(whole.config, special_ids)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file(to_huggingface(whole.state, whole.config), folder / WEIGHTS, metadata={"format": "pt"})
    share_weights_like(folder / CONFIG)


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
    _check_function(huggingface)
    pad_id = huggingface.get("pad_token_id", 1)
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


def _check_function(huggingface: dict) -> None:
    """ConversionError for a configuration of another architecture, or of this one with something that changes its output."""
    if huggingface.get("model_type") not in FAMILY:
        raise ConversionError(
            f"its model_type {huggingface.get('model_type')!r} is another architecture; what converts is {', '.join(FAMILY)}"
        )
    for key, same in _ONLY.items():
        if huggingface.get(key, same[0]) not in same:
            raise ConversionError(f"its {key} {huggingface[key]!r} is another function; what converts is {same[0]!r}")
    if huggingface.get("pad_token_id", 1) is None:
        raise ConversionError("its pad_token_id is null, but RoBERTa counts positions from it; write the number that the model has")


@contextlib.contextmanager
def _about(file: Path):
    """An error of configuration as one line that begins with the file."""
    try:
        yield
    except (KeyError, TypeError) as error:
        raise ConversionError(f"{file}: is no configuration of a RoBERTa ({error})") from None
    except (OSError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].removeprefix(f"{file}: ")
        raise ConversionError(f"{file}: {reason}") from None


def _read_config(path: Path) -> dict:
    """config.json with the values that it leaves to transformers; its model_type by `architectures` if it names none."""
    import transformers

    refuse_stand_in(path)
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConversionError(f"cannot be read as JSON ({error}); download it again") from None
    if "model_type" not in given:  # transformers before 3.0 wrote none
        given["model_type"] = next((kind for kind, name in FAMILY.items() if name in given["architectures"]), None)
    if given["model_type"] not in FAMILY:
        return given
    whole = getattr(transformers, _config_class(given["model_type"])).from_dict(given).to_dict()
    return whole | {key: given[key] for key in (*_ONLY, "tie_word_embeddings", "pad_token_id") if key in given}


def _config_class(model_type: str) -> str:
    return FAMILY[model_type].removesuffix("ForMaskedLM") + "Config"


def _difference(missing: list[str], stray: list[str]) -> str:
    """What a state dict has too little and too much, in one line."""
    parts = []
    for names, what in ((missing, "missing"), (stray, "unknown to a RoBERTa of this config.json")):
        if names:
            more = f" and {len(names) - 1} others are" if len(names) > 1 else " is"
            parts.append(f"the tensor {names[0]}{more} {what}")
    ways = {(True, False): "it is cut off or no masked language model of RoBERTa"}
    return f"{', '.join(parts)}: {ways.get((bool(missing), bool(stray)), 'the two are of different models')}"


def _widening_notes(theirs: dict[str, torch.Tensor]) -> list[str]:
    types = {tensor.dtype for tensor in theirs.values() if tensor.is_floating_point()} - {torch.float32}
    names = {str(dtype).removeprefix("torch."): dtype for dtype in types}
    return [
        f"{name} weights are {'rounded to fp32' if names[name] == torch.float64 else 'widened to fp32, which is exact'}"
        for name in sorted(names)
    ]
