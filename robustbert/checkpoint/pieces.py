"""How a checkpoint cuts a model: whole tensors -> tensor-parallel shards -> pieces, each written by one process.

A piece is a run of elements of a flattened shard, so the distributed optimizer's ranges are written as they lie in memory, without
a gather. A piece says where it belongs in the whole tensor, whatever the layout: any other layout can read it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from robustbert.parallel.mesh import Mesh

WEIGHT = "weight"  # a piece's kind; the others are those of the optimizer's moments


@dataclass(frozen=True)
class Shard:
    """A tensor-parallel rank's part of a whole tensor: `shape`, from `first` on along `axis`; axis None: all of it."""

    name: str
    whole_shape: tuple[int, ...]
    shape: tuple[int, ...]
    axis: int | None = None
    first: int = 0

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Piece:
    """The elements [start, stop) of a flattened shard, in fp32."""

    shard: Shard
    kind: str
    start: int
    stop: int

    @property
    def num_bytes(self) -> int:
        return 4 * (self.stop - self.start)


def shards_of(model, mesh: Mesh) -> Iterator[tuple[Shard, torch.nn.Parameter]]:
    """Every parameter of this process' stage and what it is of the whole model. model: a RobertaStage, wrapped or bare."""
    for name, parameter in getattr(model, "module", model).named_shards():
        shape = tuple(parameter.shape)
        if not getattr(parameter, "tensor_model_parallel", False):
            yield Shard(name, shape, shape), parameter
            continue
        axis = parameter.partition_dim
        whole = (*shape[:axis], shape[axis] * mesh.tp_size, *shape[axis + 1 :])
        yield Shard(name, whole, shape, axis, mesh.tp_rank * shape[axis]), parameter


def own_pieces(model, optimizer, mesh: Mesh) -> list[tuple[Piece, torch.Tensor]]:
    """What this process writes, with the flat fp32 tensors to be written; over the job, every element once.

    optimizer: optim.build.Optimizer, whose main weights are the ones that count; None: the model's own weights alone.
    """
    written = [(shard, parameter) for shard, parameter in shards_of(model, mesh) if _is_written_here(shard, parameter, mesh)]
    parts = {} if optimizer is None else {id(part.parameter): part for part in optimizer.owned_parts()}
    if optimizer is not None and optimizer.is_sharded:
        owned = [(shard, parts[id(parameter)]) for shard, parameter in written if id(parameter) in parts]
        return [piece for shard, part in owned for piece in _pieces_of_part(shard, part, part.start, part.stop)]
    # All data-parallel ranks hold the same: each writes its share of the elements.
    total = sum(shard.num_elements for shard, _ in written)
    first, last = total * mesh.dp_rank // mesh.dp_size, total * (mesh.dp_rank + 1) // mesh.dp_size
    pieces, position = [], 0
    for shard, parameter in written:
        start, stop = max(first - position, 0), min(last - position, shard.num_elements)
        position += shard.num_elements
        if start >= stop:
            continue
        if optimizer is None:
            flat = parameter.detach().float().reshape(-1)
            pieces.append((Piece(shard, WEIGHT, start, stop), flat[start:stop]))
        else:
            pieces += _pieces_of_part(shard, parts[id(parameter)], start, stop)
    return pieces


def _pieces_of_part(shard: Shard, part, start: int, stop: int) -> list[tuple[Piece, torch.Tensor]]:
    tensors = {WEIGHT: part.weight} | part.moments
    here = slice(start - part.start, stop - part.start)
    return [(Piece(shard, kind, start, stop), tensor[here]) for kind, tensor in tensors.items()]


def _is_written_here(shard: Shard, parameter: torch.nn.Parameter, mesh: Mesh) -> bool:
    is_copy = getattr(parameter, "shared", False)  # the last stage's copy of the first stage's embedding
    return not is_copy and (shard.axis is not None or mesh.tp_rank == 0)
