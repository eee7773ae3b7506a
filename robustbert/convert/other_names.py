"""Names that one model's tensors have in files of other versions and wrappers, and the names they have now."""

from collections.abc import Mapping
from pathlib import Path

import torch

from robustbert.convert.errors import ConversionError

# What torch.compile, FSDP and activation checkpointing put into a name, at any depth.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")

# Of RobertaForMaskedLM: tied to another tensor, of which it must be a copy. Some files have one of the two, others both.
TIED = {
    "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
    "lm_head.decoder.bias": "lm_head.bias",
}


def without_wrappers(
    tensors: Mapping[str, torch.Tensor], anchors: tuple[str, ...], file: Path
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors without what wrappers put before and into their names, and a note if there was any.

    anchors: the names that a tensor which every such model has may have, the longest first. What stands before it stands
    before all tensors of a wrapped model: `module.` of DataParallel, or the name of the attribute that held the model.
    ConversionError if only some tensors begin so: the model is a part of another one.
    """
    inside = {}
    for name, tensor in tensors.items():
        _put(inside, ".".join(part for part in name.split(".") if part not in _WRAPPERS), tensor, file)
    prefixes = {_before(name, anchors) for name in inside} - {None}
    seen = [f"{wrapper}." for wrapper in _WRAPPERS if any(wrapper in name.split(".") for name in tensors)]
    if len(prefixes) == 1 and "" not in prefixes:
        prefix = prefixes.pop()
        stray = next((name for name in inside if not name.startswith(prefix)), None)
        if stray is not None:
            raise ConversionError(
                f"{file}: the model's tensors begin with {prefix!r}, but there is {stray} as well: it is a part of another "
                "model; save the RoBERTa alone"
            )
        inside = {name.removeprefix(prefix): tensor for name, tensor in inside.items()}
        seen.insert(0, prefix)
    elif len(prefixes) > 1:
        raise ConversionError(
            f"{file}: holds {len(prefixes)} encoders, under {', '.join(map(repr, sorted(prefixes)))}; save one of them alone"
        )
    notes = [f"the wrappers' {' and '.join(map(repr, seen))} in the names of tensors left out"] if seen else []
    return inside, notes


def huggingface_names(tensors: Mapping[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """The tensors under the names that RobertaForMaskedLM gives them now.

    An encoder that was saved alone lacks `roberta.`; old files call LayerNorm's tensors gamma and beta, as TensorFlow does; the
    head's bias and matrix may be there under `lm_head.decoder` alone. ConversionError: two names of one tensor, of which
    the values differ.
    """
    names = {}
    for name, tensor in tensors.items():
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"roberta.{name}"
        module, _, kind = name.rpartition(".")
        if kind in ("gamma", "beta"):
            name = f"{module}.{'weight' if kind == 'gamma' else 'bias'}"
        _put(names, name, tensor, file)
    return {tied: names[name] for name, tied in TIED.items() if name in names} | names


def _before(name: str, anchors: tuple[str, ...]) -> str | None:
    return next((name.removesuffix(anchor) for anchor in anchors if f".{name}".endswith(f".{anchor}")), None)


def _put(tensors: dict[str, torch.Tensor], name: str, tensor: torch.Tensor, file: Path) -> None:
    former = tensors.setdefault(name, tensor)
    if former is not tensor and not (former.shape == tensor.shape and former.equal(tensor)):
        raise ConversionError(
            f"{file}: holds the tensor {name} under two names, with different values; keep the one that the model was trained with"
        )
