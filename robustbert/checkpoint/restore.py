"""From a checkpoint of any layout into this process' model and optimizer."""

from pathlib import Path

import torch

from robustbert.checkpoint.index import SavedTensors
from robustbert.checkpoint.manifest import CheckpointError
from robustbert.checkpoint.pieces import shards_of
from robustbert.parallel.mesh import Mesh


@torch.no_grad()
def restore(folder: Path, model, optimizer, mesh: Mesh) -> None:
    """Fill the model's weights, and the optimizer where one is given, from a folder whose files have been verified.

    Each process reads what it needs; nothing is sent. CheckpointError where the checkpoint is of another model, or has no
    optimizer state.
    """
    saved = SavedTensors(folder)
    if optimizer is not None and saved.optimizer_scalars is None:
        raise CheckpointError(f"{folder} holds a converted model, without the state of an optimizer; it cannot be trained on")
    parts = {} if optimizer is None else {id(part.parameter): part for part in optimizer.owned_parts()}
    for shard, parameter in shards_of(model, mesh):
        weight = torch.from_numpy(saved.read(shard))
        parameter.copy_(weight.view(parameter.shape))
        part = parts.get(id(parameter))
        if part is not None:
            part.weight.copy_(weight[part.start : part.stop])
            for kind, moment in part.moments.items():
                moment.copy_(torch.from_numpy(saved.read(shard, kind, part.start, part.stop)))
    if optimizer is not None:
        optimizer.restore_scalars(saved.optimizer_scalars)
