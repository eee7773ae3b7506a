"""Reading fairseq's model.pt, a pickle, without running anything that is in it.

torch's weights_only reader makes tensors and plain values, and of classes only those that are named here: argparse's
Namespace, and, as plain holders of their values, the classes of omegaconf's configurations and of fairseq's meters that
checkpoints of some versions hold. A file that asks for anything else is refused before it gets it.
"""

import re
import zipfile
from argparse import Namespace
from collections import defaultdict
from pathlib import Path

import torch

from robustbert.convert.errors import ConversionError


class _Holder:
    """Stands for an object of a library that need not be here: takes its values, and can do nothing."""

    def __init__(self, *arguments, **values):
        self.__dict__.update(values)

    def __setstate__(self, values):
        self.__dict__.update(values if isinstance(values, dict) else {})


_HELD = [
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata", "Node", "Container")),
    *(f"omegaconf.nodes.{name}Node" for name in ("Any", "Boolean", "Enum", "Float", "Integer", "String", "Value", "Bytes")),
    *(
        f"fairseq.{module}.{name}Meter"
        for module in ("meters", "logging.meters")
        for name in ("Average", "Time", "Stopwatch", "Sum")
    ),
    "typing.Any",
]
_NAMED_TYPES = [dict, list, str, int, float, bool, defaultdict]  # what omegaconf notes beside its values


def read_model_file(path: Path) -> dict:
    """The content of a model.pt: a dict with a state dict `model`. ConversionError where it cannot be read safely."""
    allowed = [Namespace, *_NAMED_TYPES, *((_Holder, name) for name in _HELD)]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # of many kinds, for a damaged file can hold anything
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise ConversionError(
                f"{path}: refused, for it asks for {wanted[1].rstrip('.,`')}, which no model needs; nothing of it was run"
            ) from None
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ConversionError(f"{path}: cannot be read as fairseq's model.pt ({reason}); it is cut off or damaged") from None
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in model.values()):
        raise ConversionError(f"{path}: is no checkpoint of fairseq: it has no state dict `model`")
    return content


def settings_of(content: dict, path: Path) -> dict:
    """The model's settings as a plain dict: `args`, or else the model's part of `cfg`."""
    settings = content.get("args")
    if settings is None:
        settings = _plain(content.get("cfg"))
        settings = settings.get("model") if isinstance(settings, dict) else None
    settings = _plain(settings)
    if not isinstance(settings, dict):
        raise ConversionError(f"{path}: has neither `args` nor `cfg.model`: the number of attention heads is not known")
    return settings


def _plain(value):
    """Namespaces and held configurations as dicts, lists and values, down to the bottom."""
    if isinstance(value, _Holder):
        value = vars(value).get("_content", vars(value).get("_val"))
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value
