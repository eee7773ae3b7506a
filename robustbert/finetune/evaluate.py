"""What a model says of a split: outputs of all items, collected from all processes, and kept in a file."""

import itertools
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xxhash

from robustbert.device import PRECISION_DTYPES, Device
from robustbert.finetune.batches import collate, length_sorted_batches
from robustbert.finetune.replicas import Replicas
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import Item, Task
from robustbert.finetune.transfer import Outputs, on_device

BATCH_SIZE = 32


def autocast(device: Device, precision: str):
    """The context in which the model computes in `precision`."""
    return torch.autocast(device.torch_device.type, PRECISION_DTYPES[precision], enabled=precision != "fp32")


def one_cast(device: Device):
    """Inside, every autocast() takes the weights that the first one has cast; they must not change in between."""
    return torch.autocast(device.torch_device.type, enabled=False)


def model_outputs(
    task: Task, model: torch.nn.Module, items: Sequence[Item], pad_id: int, precision: str, device: Device, replicas: Replicas
) -> list[np.ndarray]:
    """task.outputs() of all items, in their order, on every process. A batch is the same whoever computes it."""
    was_training = model.training
    model.eval()
    my_places = length_sorted_batches(items, BATCH_SIZE)[replicas.rank :: replicas.world_size]
    batches = (collate(task, [items[place] for place in places], pad_id) for places in my_places)
    mine, ahead = [], None
    with torch.inference_mode(), autocast(device, precision):
        for batch in on_device(batches, device.torch_device):
            outputs = Outputs(task.outputs(model, batch))
            if ahead is not None:  # the device has the next batch to compute before the host waits for this one's outputs
                mine += ahead.arrays()
            ahead = outputs
        mine += ahead.arrays() if ahead is not None else []
    model.train(was_training)
    everyone = replicas.gather(dict(zip(itertools.chain(*my_places), mine, strict=True)))
    return [everyone[place] for place in range(len(items))]


def outputs_file(split: str) -> str:
    """The name of the file with a split's outputs, in a model's folder."""
    return f"outputs_{split}.npz"


def fingerprint(items: Sequence[Item]) -> str:
    """A hash of what the model is given."""
    digest = xxhash.xxh3_128()
    for item in items:
        for sequence in item.sequences:
            digest.update(sequence.ids.tobytes())
    return digest.hexdigest()


def save_outputs(path: Path, items: Sequence[Item], outputs: Sequence[np.ndarray]) -> None:
    """Write the items' outputs, of any shapes, to a .npz file."""
    shapes = [np.shape(output) for output in outputs]
    partial = path.with_name(f".{path.name}")  # it ends in .npz, or savez would add that
    np.savez(
        partial,
        of=np.array(fingerprint(items)),
        num_dims=np.array([len(shape) for shape in shapes], np.int64),
        sizes=np.array([size for shape in shapes for size in shape], np.int64),
        values=np.concatenate([np.ravel(output) for output in outputs]).astype(np.float32),
    )
    partial.replace(path)


def load_outputs(path: Path, items: Sequence[Item]) -> list[np.ndarray] | None:
    """What save_outputs wrote for the same items; None for others, or without a file."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("of", "num_dims", "sizes", "values")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FinetuneError(f"{path}: no outputs can be read ({error}); remove it, they are computed again") from None
    if str(arrays["of"]) != fingerprint(items):
        return None
    sizes, ends = arrays["sizes"], np.cumsum(arrays["num_dims"])
    shapes = [tuple(sizes[end - dims : end]) for end, dims in zip(ends, arrays["num_dims"])]
    pieces = np.split(arrays["values"], np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes)]
