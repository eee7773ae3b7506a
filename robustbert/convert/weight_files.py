"""The files of a Hugging Face folder that hold its weights: which they are, and reading them without running anything."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from robustbert.convert.errors import ConversionError
from robustbert.convert.other_names import huggingface_names, without_wrappers
from robustbert.convert.pickles import load_pickle, refuse_stand_in

WEIGHTS = "model.safetensors"
# In the order in which transformers looks for them: one file, or the index of several.
_FILES = (WEIGHTS, "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_INDEX = ".index.json"
_ANCHORS = tuple(f"{prefix}embeddings.position_embeddings.weight" for prefix in ("roberta.", ""))
_OF_OTHERS = ("*.h5", "*.msgpack", "*.gguf", "*.onnx", "adapter_model.*", "model.*.safetensors", "pytorch_model*", "*.ckpt", "*.pt")


def is_weight_file(path: Path) -> bool:
    """Whether a file has a name under which transformers looks for weights."""
    return path.name in _FILES


def read_weights(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors of a Hugging Face folder under the names of today's RobertaForMaskedLM, and notes on what was changed.

    Safetensors and torch's files, sharded or not; torch's are read with weights_only. ConversionError: the weights are not
    there, cut off, or no tensors.
    """
    inside, notes = without_wrappers(_as_saved(folder), _ANCHORS, folder)
    return huggingface_names(inside, folder), notes


def read_tensors(folder: Path, names: list[str]) -> list[torch.Tensor] | None:
    """Some tensors of a folder of any architecture, as they are called there, in fp32; None where one of them is not there."""
    theirs = _as_saved(folder)
    return [theirs[name].float() for name in names] if all(name in theirs for name in names) else None


def _as_saved(folder: Path) -> dict[str, torch.Tensor]:
    theirs: dict[str, torch.Tensor] = {}
    for path, expected in _weight_files(folder).items():
        theirs |= _load(path)
        absent = next((name for name in expected if name not in theirs), None)
        if absent is not None:
            raise ConversionError(f"{path}: the tensor {absent} is missing, which the index beside it names")
    return theirs


def _weight_files(folder: Path) -> dict[Path, list[str]]:
    """The files to read, and the tensors that an index expects in each."""
    first = next((name for name in _FILES if (folder / name).exists()), None)
    if first is None:
        others = sorted(path.name for pattern in _OF_OTHERS for path in folder.glob(pattern))
        seen = f"; what it has is {', '.join(others)}" if others else ""
        raise ConversionError(f"{folder} has none of {', '.join(_FILES)}{seen}; save the model with save_pretrained first")
    if not first.endswith(_INDEX):
        return {folder / first: []}
    index = folder / first
    refuse_stand_in(index)
    files: dict[Path, list[str]] = {}
    try:
        for name, shard in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
            if Path(shard).name != shard:
                raise ConversionError(f"{index}: names {shard!r}, which is no file of its own folder")
            files.setdefault(folder / shard, []).append(name)
    except (OSError, KeyError, AttributeError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
        raise ConversionError(f"{index}: cannot be read as an index of weights; it is damaged") from None
    absent = [path.name for path in files if not path.exists()]
    if absent:
        raise ConversionError(f"{index}: of its {len(files)} files {', '.join(absent)} is not there; download the folder again")
    return files


def _load(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix != ".safetensors":
        return _state_dict(load_pickle(path, "a state dict"), path)
    refuse_stand_in(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConversionError(f"{path}: cannot be read ({error}); it is cut off or damaged") from None


def _state_dict(content, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, dict) and content and all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        return content
    held = f"{', '.join(map(str, list(content)[:5])) or 'nothing'}" if isinstance(content, dict) else type(content).__name__
    raise ConversionError(f"{path}: is no state dict (it holds {held}); save the model's state dict alone, as save_pretrained does")
