"""From a checkpoint of any layout into this process' model and optimizer."""

from pathlib import Path

import torch

from robustbert.checkpoint.index import SavedTensors
from robustbert.checkpoint.manifest import CheckpointError, Manifest, read_manifest, verify_files
from robustbert.checkpoint.pieces import Shard, shards_of
from robustbert.parallel.mesh import Mesh


@torch.no_grad()
def restore(folder: Path, model, optimizer, mesh: Mesh) -> None:
    """Fill the model's weights, and the optimizer where one is given, from a folder whose files have been verified.

    Each process reads what it needs; nothing is sent. CheckpointError where the checkpoint is of another model, or has no
    optimizer state.
    """
    saved = SavedTensors(folder)
    if optimizer is not None and saved.optimizer_scalars is None:
        raise CheckpointError(
            f"{folder} holds a converted model, without the state of an optimizer; a new run begins with it: train.start_from={folder}"
        )
    parts = {} if optimizer is None else {id(part.parameter): part for part in optimizer.owned_parts()}
    for shard, parameter in shards_of(model, mesh):
        part = parts.get(id(parameter))
        _fill(saved, shard, parameter, part)
        if part is not None:
            for kind, moment in part.moments.items():
                moment.copy_(torch.from_numpy(saved.read(shard, kind, part.start, part.stop)))
    if optimizer is not None:
        optimizer.restore_scalars(saved.optimizer_scalars)


@torch.no_grad()
def restore_weights(folder: Path, model, optimizer, mesh: Mesh, may_be_missing: tuple[str, ...] = ()) -> list[str]:
    """Fill the weights alone, the optimizer's main weights among them; moments and scalars stay as they are.

    may_be_missing: beginnings of the names of tensors that stay as they are where the checkpoint has none of them.
    Returns the names of this process' tensors that did. CheckpointError where the checkpoint is of another model.
    """
    saved = SavedTensors(folder)
    names, missing = set(saved.names), []
    parts = {id(part.parameter): part for part in optimizer.owned_parts()}
    for shard, parameter in shards_of(model, mesh):
        if shard.name not in names and shard.name.startswith(may_be_missing):
            missing.append(shard.name)
        else:
            _fill(saved, shard, parameter, parts.get(id(parameter)))
    return missing


def _fill(saved: SavedTensors, shard: Shard, parameter: torch.nn.Parameter, part) -> None:
    """part: the optimizer's OwnedPart of this parameter, where this process has one."""
    weight = torch.from_numpy(saved.read(shard))
    parameter.copy_(weight.view(parameter.shape))
    if part is not None:
        part.weight.copy_(weight[part.start : part.stop])


def verify_together(folder: Path, mesh: Mesh) -> tuple[Manifest | None, str | None]:
    """The processes of a job verify a checkpoint's files, each its share of them.

    Returns (its manifest, None), or (None, what is wrong); the same on every process.
    """
    manifest = error = None
    try:
        manifest = read_manifest(folder)
        verify_files(folder, manifest, sorted(manifest.files)[mesh.rank :: mesh.world_size])
    except CheckpointError as wrong:
        error = str(wrong)
    errors = mesh.gather_on_main(error)
    error = mesh.broadcast_from_main(next(filter(None, errors), None) if mesh.is_main else None)
    return (None, error) if error else (manifest, None)
