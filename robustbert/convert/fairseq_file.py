"""Reading fairseq's model.pt, a pickle, without running anything that is in it.

Of classes it may hold those that are named here: argparse's Namespace, numpy's scalars, and, as plain holders of their values,
the classes of omegaconf's configurations and of fairseq's meters that checkpoints of some versions hold.
"""

from argparse import Namespace
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from robustbert.convert.errors import ConversionError
from robustbert.convert.pickles import load_pickle


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
    "fairseq.data.dictionary.Dictionary",
]
# numpy's own, not holders: other libraries of the process may have allowed some of them, and torch keeps one of each name.
_SCALAR = np.float64(0).__reduce__()[0]
_NUMPY = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f2", "f4", "f8")),
]
_NAMED_TYPES = [dict, list, str, int, float, bool, defaultdict]  # what omegaconf notes beside its values


def read_model_file(path: Path) -> dict:
    """The content of a model.pt: a dict with a state dict `model`. ConversionError where it cannot be read safely."""
    allowed = [Namespace, *_NAMED_TYPES, *_NUMPY, *((_Holder, name) for name in _HELD)]
    content = load_pickle(path, "fairseq's model.pt", allowed)
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
