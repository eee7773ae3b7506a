"""Models of transformers for tasks: a pretrained encoder with a new head, and what a folder says about itself.

Weights are read from safetensors, or from torch's files with weights_only: nothing that a pickle asks for is run.
"""

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import torch

from robustbert.data.tokenizer.with_transformers import keep_added_specials, read_with_transformers
from robustbert.device import PRECISION_DTYPES
from robustbert.finetune.attention import attend_in_segments
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import ModelSource

# What configurations call their dropout
_DROPOUTS = ("hidden_dropout_prob", "dropout")
_ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


def encoder_with_new_head(source: ModelSource, new_model: Callable, **config_changes) -> torch.nn.Module:
    """The model that new_model(config) makes, with the encoder's weights of `source`; whatever head it had is dropped.

    But for the pooler of a model pretrained with the next-sentence loss (section 4.2): it stays the layer above the first token's
    vector, as in BERT, also where transformers' heads have a layer of their own for it.
    new_model: such as AutoModelForSequenceClassification.from_config; its base_model is the encoder.
    config_changes: such as num_labels=3. All that is not pretrained is drawn from source.seed.
    """
    from transformers import AutoModel

    config = read_config(source, **config_changes)
    with _reading(source.folder):
        torch.manual_seed(source.seed)
        model = new_model(config)
        if not source.untrained:
            encoder = _from_pretrained(source.folder, AutoModel, config)
            model.base_model.load_state_dict(encoder.state_dict(), strict=False)  # not all heads want the pooler
            dense = getattr(getattr(model, "classifier", None), "dense", None)
            if isinstance(dense, torch.nn.Linear) and _has_next_sentence_head(source.folder):
                dense.load_state_dict(encoder.pooler.dense.state_dict())
    return model.float()


def pretrained_model(source: ModelSource, model_class, **config_changes) -> torch.nn.Module:
    """The model with its pretrained head, such as AutoModelForMaskedLM, with the dropout of `source`."""
    config = read_config(source, **config_changes)
    with _reading(source.folder):
        torch.manual_seed(source.seed)
        if source.untrained:
            return model_class.from_config(config).float()
        return _from_pretrained(source.folder, model_class, config)


def load_finetuned(folder: Path, model_class) -> torch.nn.Module:
    """The model that save_pretrained wrote."""
    with _reading(folder):
        return _from_pretrained(folder, model_class)


def place(model: torch.nn.Module, device: torch.device, precision: str, compiled: bool = False) -> torch.nn.Module:
    """The model on the device, its attention by the kernel that suits, its encoder's layers compiled if that is asked for."""
    attend_in_segments(model, device, PRECISION_DTYPES[precision])
    if compiled:
        compile_layers(model)
    return model.to(device)


def compile_layers(model: torch.nn.Module, backend: str | Callable = "inductor") -> None:
    """Compile the encoder's layers: one graph for all of them and for all lengths, two if batches have a single sequence as well."""
    count = model.config.num_hidden_layers
    layers = next((m for m in model.base_model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count), None)
    if layers is None:
        raise FinetuneError(f"--compile: {type(model).__name__} has no list of {count} layers; leave it out")
    for layer in layers:
        layer.compile(backend=backend, dynamic=True)


def read_config(source: ModelSource, **changes):
    """The configuration of the source's folder with its dropout and the changes."""
    from transformers import AutoConfig

    with _reading(source.folder):
        config = AutoConfig.from_pretrained(source.folder)
    for names, value in ((_DROPOUTS, source.dropout), (_ATTENTION_DROPOUTS, source.attention_dropout)):
        changes |= {name: value for name in names if hasattr(config, name)}
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def read_tokenizer(folder: Path):
    """The fast tokenizer of a folder; it gives segments if the model beside it reads them."""
    from transformers import AutoConfig

    with _reading(folder):
        tokenizer, config = read_with_transformers(folder), AutoConfig.from_pretrained(folder)
    if not tokenizer.is_fast:
        raise FinetuneError(f"{folder} has no fast tokenizer; save one beside the model: it has a tokenizer.json")
    keep_added_specials(tokenizer)
    if config.model_type == "roberta" and config.type_vocab_size > 1:
        _give_segments(tokenizer)
    return tokenizer


def _give_segments(tokenizer) -> None:
    """Have RoBERTa's tokenizer tell two texts' segments as pretraining on pairs does (sections 2.2, 4.2); by itself it tells none."""
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    template = TemplateProcessing(
        single=f"{bos}:0 $A:0 {eos}:0",
        pair=f"{bos}:0 $A:0 {eos}:0 {eos}:1 $B:1 {eos}:1",
        special_tokens=[(bos, tokenizer.bos_token_id), (eos, tokenizer.eos_token_id)],
    )
    tokenizer.backend_tokenizer.post_processor = Sequence([ByteLevel(trim_offsets=True), template])
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]


def num_positions(model: torch.nn.Module) -> int:
    """The longest sequence that the model's position embeddings allow."""
    positions = model.config.max_position_embeddings
    for name, module in model.base_model.named_modules():
        # RoBERTa counts positions from the number after the padding's id
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return positions - module.padding_idx - 1
    return positions


def _has_next_sentence_head(folder: Path) -> bool:
    """Whether the weights have that head in whole; a pooler alone may never have been trained."""
    from robustbert.convert.huggingface import NAMING
    from robustbert.convert.weight_files import read_tensors

    return read_tensors(folder, list(NAMING.next_sentence.values())) is not None


def _from_pretrained(folder: Path, model_class, config=None):
    """from_pretrained, of which every weight but a pooler's (that masked language models lack) must be in the file."""
    model, info = model_class.from_pretrained(
        folder, config=config, weights_only=True, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        others = sorted(info["unexpected_keys"])
        instead = f" (it has {others[0]}, say; tools/convert reads names with the prefixes of wrappers)" if others else ""
        raise FinetuneError(
            f"the file has no {missing[0]}, nor {len(missing) - 1} other weights of {type(model).__name__}{instead}"
        )
    return model


@contextlib.contextmanager
def _reading(folder: Path):
    try:
        yield
    except (OSError, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FinetuneError(
            f"{folder}: transformers cannot read a model there ({reason}); it needs config.json, model.safetensors or "
            "pytorch_model.bin, and a tokenizer"
        ) from error
