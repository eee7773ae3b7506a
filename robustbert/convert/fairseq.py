"""fairseq's RobertaModel: names of its tensors, its configuration, and the folder with model.pt and dict.txt.

What is written is what fairseq 0.12 saves: `cfg` (plain values, so that the file needs no pickled classes), `model` and the
entries that its loader asks for. What is read is that, or `args`, as RoBERTa's release has it.

A next-sentence head becomes the classification head `next_sentence`, which computes the same. fairseq has no token types:
the first row is folded into the position embeddings, so that texts of one segment give the same logits; the rows and the
positions as they were are kept beside the model, under a key that fairseq does not look at, for the way back.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from robustbert.config import ConfigError, ModelConfig
from robustbert.config.sections import MODEL_PRESETS
from robustbert.convert.errors import ConversionError
from robustbert.convert.fairseq_file import read_model_file, settings_of
from robustbert.convert.naming import POSITIONS, TOKEN_TYPES, Naming
from robustbert.convert.new_head import lacks_head
from robustbert.convert.other_names import without_wrappers
from robustbert.convert.whole_model import WholeModel
from robustbert.data.tokenizer import Tokenizer
from robustbert.data.tokenizer.byte_bpe import ByteBPE
from robustbert.data.tokenizer.numbering import NUM_LEADING_SPECIALS, PAD

NEXT_SENTENCE = "next_sentence"
_ENCODER = "encoder.sentence_encoder"
_POSITIONS = f"{_ENCODER}.embed_positions.weight"
_WORDS = f"{_ENCODER}.embed_tokens.weight"
ANCHORS = tuple(f"{stack}.sentence_encoder.embed_positions.weight" for stack in ("encoder", "decoder"))
_LAYERNORM_EPS = 1e-5
_PAD_ID = 1
_BESIDE_THE_MODEL = "robustbert"
NAMING = Naming(
    outer={
        "embeddings.word_embeddings.weight": _WORDS,
        "embeddings.position_embeddings.weight": _POSITIONS,
        "embeddings.layer_norm.weight": f"{_ENCODER}.layernorm_embedding.weight",
        "embeddings.layer_norm.bias": f"{_ENCODER}.layernorm_embedding.bias",
        "lm_head.dense.weight": "encoder.lm_head.dense.weight",
        "lm_head.dense.bias": "encoder.lm_head.dense.bias",
        "lm_head.layer_norm.weight": "encoder.lm_head.layer_norm.weight",
        "lm_head.layer_norm.bias": "encoder.lm_head.layer_norm.bias",
        "lm_head.bias": "encoder.lm_head.bias",
    },
    next_sentence={
        f"next_sentence_head.{ours}.{kind}": f"classification_heads.{NEXT_SENTENCE}.{theirs}.{kind}"
        for ours, theirs in (("pooler", "dense"), ("classifier", "out_proj"))
        for kind in ("weight", "bias")
    },
    token_types=None,
    layer=f"{_ENCODER}.layers.{{}}.",
    layer_modules={
        "attention.output": "self_attn.out_proj",
        "attention_layer_norm": "self_attn_layer_norm",
        "ffn.up": "fc1",
        "ffn.down": "fc2",
        "ffn_layer_norm": "final_layer_norm",
    },
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)
# Another value of these makes another model. Missing means the first.
_ONLY = {
    "activation_fn": ("gelu",),
    "encoder_normalize_before": (False,),
    "layernorm_embedding": (True,),
    "encoder_learned_pos": (True,),
    "no_token_positional_embeddings": (False,),
    "no_scale_embedding": (True,),
    "untie_weights_roberta": (False,),
    "encoder_layers_to_keep": (None,),
    "quant_noise_pq": (0,),
}


def read_fairseq(
    model_file: Path, head: Callable[[ModelConfig], dict[str, torch.Tensor]] | None = None
) -> tuple[WholeModel, list[str]]:
    """RobertaModel of a model.pt, and notes on what is lost.

    head: makes the masked-language-model head, under fairseq's names, of an encoder that was saved without one.
    ConversionError for what is no such model.
    """
    content = read_model_file(model_file)
    inside, notes = without_wrappers(content["model"], ANCHORS, model_file)
    theirs = _canonical_names(inside)
    settings = settings_of(content, model_file)
    for key, (wanted,) in _ONLY.items():
        if settings.get(key, wanted) != wanted:
            raise ConversionError(f"{model_file}: its {key} is {settings[key]!r}; only {wanted!r} can be converted")
    kept = _beside_the_model(content, theirs, model_file)
    config = _config_of(settings, theirs, kept, model_file)
    if head is not None:
        if not lacks_head(theirs, NAMING):
            raise ConversionError(f"{model_file}: has a masked-language-model head (lm_head.*) already; leave out --new-head")
        theirs |= head(config)
    elif lacks_head(theirs, NAMING):
        raise ConversionError(
            f"{model_file}: is an encoder without a masked-language-model head (it has no encoder.lm_head.dense.weight); "
            "--new-head gives it one, initialised from --seed"
        )
    tied = theirs.get("encoder.lm_head.weight")
    if tied is not None and not tied.equal(theirs[_WORDS]):
        raise ConversionError(f"{model_file}: encoder.lm_head.weight differs from {_WORDS}; only a tied head is converted")
    state = NAMING.from_theirs(theirs, config, model_file)
    narrow = theirs[_WORDS].dtype
    if narrow != torch.float32:
        notes.append(f"{str(narrow).removeprefix('torch.')} weights are widened to fp32, which is exact")
    if config.num_token_types:
        state[POSITIONS], state[TOKEN_TYPES] = kept[POSITIONS].clone(), kept[TOKEN_TYPES].clone()
        notes.append("the token types that were kept beside the model are put back")
    heads = sorted({name.split(".")[1] for name in _unused(theirs, config) if name.startswith("classification_heads.")})
    if heads:
        notes.append(f"not carried over: the classification head{'s' * (len(heads) > 1)} {', '.join(heads)}")
    unknown = [name for name in _unused(theirs, config) if not name.startswith("classification_heads.")]
    if unknown:
        raise ConversionError(f"{model_file}: the tensor {unknown[0]} belongs to no RoBERTa; this is another model")
    return WholeModel(config, state), notes


def write_fairseq(folder: Path, whole: WholeModel, tokenizer: Tokenizer, final: Path) -> list[str]:
    """Write model.pt, dict.txt, encoder.json and vocab.bpe into `folder`, which will become `final`; returns notes.

    ConversionError where fairseq cannot say what the model is.
    """
    config = whole.config
    _check_writable(config, tokenizer)
    folder.mkdir()
    tokenizer.save_for_fairseq(folder)
    theirs = NAMING.to_theirs(whole.state, config)
    theirs["encoder.lm_head.weight"] = theirs[_WORDS]
    theirs[f"{_ENCODER}.version"] = torch.tensor([3.0])
    content = {
        "args": None,
        "cfg": _settings(config, final),
        "model": theirs,
        "optimizer_history": [
            dict(criterion_name="MaskedLmLoss", optimizer_name="FairseqAdam", lr_scheduler_state={}, num_updates=0)
        ],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "task_state": {},
    }
    notes = []
    if config.num_token_types:
        theirs[_POSITIONS] += whole.state[TOKEN_TYPES][0]
        content[_BESIDE_THE_MODEL] = {name: whole.state[name] for name in (POSITIONS, TOKEN_TYPES)}
        notes.append(
            "fairseq has no token types: the first is folded into the position embeddings"
            + (", so there a second segment looks like the first" if config.num_token_types > 1 else "")
        )
    if config.next_sentence_head:
        notes.append(f"the next-sentence head is the classification head {NEXT_SENTENCE}")
    torch.save(content, folder / "model.pt")
    return notes


def _check_writable(config: ModelConfig, tokenizer: Tokenizer) -> None:
    if not isinstance(tokenizer, ByteBPE):
        raise ConversionError("fairseq's RoBERTa has a byte-level BPE, this model another tokenizer; use --to huggingface")
    if config.pad_id != _PAD_ID or config.layernorm_eps != _LAYERNORM_EPS:
        raise ConversionError(
            f"fairseq has {PAD} at {_PAD_ID} and layer norms with eps {_LAYERNORM_EPS}, this model {config.pad_id} and "
            f"{config.layernorm_eps}; use --to huggingface"
        )
    if tokenizer.vocab_size != config.vocab_size:
        raise ConversionError(
            f"the model has {config.vocab_size} ids, its tokenizer {tokenizer.vocab_size}: fairseq's dict.txt cannot say which "
            "tokens the others are; use --to huggingface"
        )


def _settings(config: ModelConfig, final: Path) -> dict:
    """fairseq's configuration; values that are left out have fairseq's defaults."""
    return {
        "common": {"seed": 1},
        "task": {
            "_name": "masked_lm",
            "data": str(final),
            "sample_break_mode": "complete",
            "tokens_per_sample": config.max_sequence_length,
            "seed": 1,
        },
        "criterion": {"_name": "masked_lm"},
        # fairseq's own default is a download of GPT-2's, which another vocabulary would not notice.
        "bpe": {
            "_name": "gpt2",
            "gpt2_encoder_json": str(final.absolute() / "encoder.json"),
            "gpt2_vocab_bpe": str(final.absolute() / "vocab.bpe"),
        },
        "model": {
            "_name": "roberta",
            "arch": "roberta",
            "encoder_layers": config.num_layers,
            "encoder_embed_dim": config.hidden_size,
            "encoder_ffn_embed_dim": config.ffn_hidden_size,
            "encoder_attention_heads": config.num_attention_heads,
            "max_positions": config.max_sequence_length,
            "tokens_per_sample": config.max_sequence_length,
            "dropout": config.dropout,
            "attention_dropout": config.attention_dropout,
            "activation_dropout": 0.0,
            "pooler_dropout": 0.0,
            "pooler_activation_fn": "tanh",
            "encoder_layerdrop": 0.0,
            "load_checkpoint_heads": True,
            **{key: value for key, (value,) in _ONLY.items()},
        },
    }


def _config_of(settings: dict, theirs: dict[str, torch.Tensor], kept: dict, file: Path) -> ModelConfig:
    arch = settings.get("arch") or settings.get("_name")
    sizes = MODEL_PRESETS["roberta-large" if arch == "roberta_large" else "roberta-base"]  # where it leaves them to the name
    for needed in (_WORDS, _POSITIONS):
        if needed not in theirs or theirs[needed].dim() != 2:
            raise ConversionError(f"{file}: the tensor {needed} is missing or no table: it is no RoBERTa")
    has_head = all(name in theirs for name in NAMING.next_sentence.values())
    num_token_types = len(kept[TOKEN_TYPES]) if kept else 0
    try:
        return ModelConfig(
            num_layers=settings.get("encoder_layers", sizes["num_layers"]),
            hidden_size=settings.get("encoder_embed_dim", sizes["hidden_size"]),
            ffn_hidden_size=settings.get("encoder_ffn_embed_dim", sizes["ffn_hidden_size"]),
            num_attention_heads=settings.get("encoder_attention_heads", sizes["num_attention_heads"]),
            max_sequence_length=len(theirs[_POSITIONS]) - _PAD_ID - 1,
            dropout=settings.get("dropout", 0.1),
            attention_dropout=settings.get("attention_dropout", 0.1),
            vocab_size=len(theirs[_WORDS]),
            layernorm_eps=_LAYERNORM_EPS,
            num_token_types=num_token_types,
            next_sentence_head=has_head and theirs[f"classification_heads.{NEXT_SENTENCE}.out_proj.bias"].shape == (2,),
            pad_id=_PAD_ID,
        )
    except (ConfigError, TypeError) as error:
        raise ConversionError(f"{file}: its configuration is no RoBERTa's ({error})") from None


def _beside_the_model(content: dict, theirs: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """The token types and the positions without them, where write_fairseq kept them."""
    kept = content.get(_BESIDE_THE_MODEL)
    if kept is None:
        return {}
    positions = theirs.get(_POSITIONS)
    try:
        is_whole = positions.shape == kept[POSITIONS].shape and positions.shape[1:] == kept[TOKEN_TYPES].shape[1:]
    except (AttributeError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise ConversionError(f"{file}: its entry {_BESIDE_THE_MODEL!r} does not fit its model; convert the original again")
    return kept


def _canonical_names(model: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict under the names of fairseq 0.12, whatever version wrote it."""
    theirs = {}
    for name, tensor in model.items():
        if name.startswith("decoder."):
            name = "encoder." + name.removeprefix("decoder.")
        name = name.replace(".emb_layer_norm.", ".layernorm_embedding.")
        if name.endswith((".self_attn.in_proj_weight", ".self_attn.in_proj_bias")) and len(tensor) % 3 == 0:
            attention, _, kind = name.rpartition(".in_proj_")
            for part, third in zip("qkv", tensor.chunk(3)):
                theirs[f"{attention}.{part}_proj.{kind}"] = third
        else:
            theirs[name] = tensor
    return theirs


def _unused(theirs: dict[str, torch.Tensor], config: ModelConfig) -> list[str]:
    """Tensors that ours has no place for; not those that fairseq 0.12 keeps twice for its fast path, and its version."""
    doubles = ("in_proj_", "out_proj_", "fc1_", "fc2_")
    return [
        name
        for name in NAMING.unused(theirs, config)
        if name not in ("encoder.lm_head.weight", f"{_ENCODER}.version") and not name.rpartition(".")[2].startswith(doubles)
    ]


def check_dictionary(model_file: Path, dictionary: Path, tokenizer: Tokenizer, config: ModelConfig) -> None:
    """ConversionError where the tokenizer that was read with dict.txt does not have the model's ids."""
    if tokenizer.vocab_size != config.vocab_size:
        raise ConversionError(
            f"{dictionary}: {tokenizer.vocab_size - NUM_LEADING_SPECIALS - 1} tokens, with the five specials "
            f"{tokenizer.vocab_size} ids, but {model_file} has {config.vocab_size}: it belongs to another model"
        )
