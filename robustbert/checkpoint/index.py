"""index.json: which piece lies where in a checkpoint's files; and reading any shard of any layout through it.

The files hold raw little-endian fp32 numbers and the index is JSON: reading a checkpoint runs no code of whoever wrote it.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbert.checkpoint.manifest import CheckpointError
from robustbert.checkpoint.pieces import WEIGHT, Piece, Shard

INDEX = "index.json"
_DTYPE = np.dtype("<f4")


@dataclass(frozen=True)
class Placed:
    """A piece and its place: the offset (bytes) in a file."""

    piece: Piece
    file: str
    offset: int


def place(pieces: Iterable[Piece], file: str) -> list[Placed]:
    """The pieces one after the other in a file."""
    placed, offset = [], 0
    for piece in pieces:
        placed.append(Placed(piece, file, offset))
        offset += piece.num_bytes
    return placed


def to_records(placed: Iterable[Placed]) -> list[list]:
    """For JSON, one short list a piece."""
    records = []
    for item in placed:
        shard, piece = item.piece.shard, item.piece
        geometry = [shard.name, list(shard.whole_shape), list(shard.shape), shard.axis, shard.first]
        records.append([*geometry, piece.kind, piece.start, piece.stop, item.file, item.offset])
    return records


def dump_index(records: list[list], optimizer_scalars: dict | None) -> str:
    """The text of index.json."""
    return json.dumps({"optimizer": optimizer_scalars, "pieces": records})


class SavedTensors:
    """The tensors of a committed checkpoint, to be cut as any layout needs them.

    CheckpointError where the index cannot be read, or a tensor is not there or not complete.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._files: dict[str, np.memmap] = {}
        self._placed: dict[tuple[str, str], list[Placed]] = defaultdict(list)
        try:
            tree = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            self.optimizer_scalars: dict | None = tree["optimizer"]
            for name, whole, shape, axis, first, kind, start, stop, file, offset in tree["pieces"]:
                shard = Shard(name, tuple(whole), tuple(shape), axis, first)
                self._placed[name, kind].append(Placed(Piece(shard, kind, start, stop), file, offset))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / INDEX} cannot be read: {error!r}") from None

    @property
    def names(self) -> list[str]:
        """The tensors whose weights are there."""
        return [name for name, kind in self._placed if kind == WEIGHT]

    def read(self, wanted: Shard, kind: str = WEIGHT, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The elements [start, stop) of a flattened shard of any layout: fp32, flat, a copy."""
        stop = wanted.num_elements if stop is None else stop
        placed = self._placed.get((wanted.name, kind))
        if not placed:
            raise CheckpointError(f"{self._folder} has no {kind} of {wanted.name}: it is of another model")
        by_shard: dict[Shard, list[Placed]] = defaultdict(list)
        for item in placed:
            by_shard[item.piece.shard].append(item)
        if (whole_shape := placed[0].piece.shard.whole_shape) != wanted.whole_shape:
            raise CheckpointError(
                f"{self._folder}: {wanted.name} has the shape {list(whole_shape)}, the model's is {list(wanted.whole_shape)}; "
                "it is of another model"
            )
        if wanted in by_shard:
            return self._read_range(wanted, by_shard[wanted], start, stop)
        target = np.empty(wanted.shape, _DTYPE)
        axis = next(shard.axis for shard in (wanted, *by_shard) if shard.axis is not None)
        covered = 0
        for shard, items in by_shard.items():
            low = max(wanted.first, shard.first)
            high = min(wanted.first + wanted.shape[axis], shard.first + shard.shape[axis])
            if low < high:
                saved = self._read_range(shard, items, 0, shard.num_elements).reshape(shard.shape)
                _rows(target, axis, low - wanted.first, high - wanted.first)[...] = _rows(
                    saved, axis, low - shard.first, high - shard.first
                )
                covered += high - low
        if covered != wanted.shape[axis]:
            raise CheckpointError(f"{self._folder}: {wanted.name} ({kind}) is not complete")
        return target.reshape(-1)[start:stop]

    def read_whole(self, name: str) -> np.ndarray:
        """The weights of a whole tensor, in its shape."""
        if (name, WEIGHT) not in self._placed:
            raise CheckpointError(f"{self._folder} has no {name}: it is of another model")
        shape = self._placed[name, WEIGHT][0].piece.shard.whole_shape
        return self.read(Shard(name, shape, shape)).reshape(shape)

    def _read_range(self, shard: Shard, items: list[Placed], start: int, stop: int) -> np.ndarray:
        target, covered = np.empty(stop - start, _DTYPE), 0
        for item in items:
            low, high = max(start, item.piece.start), min(stop, item.piece.stop)
            if low < high:
                first = item.offset // _DTYPE.itemsize + low - item.piece.start
                target[low - start : high - start] = self._file(item.file)[first : first + high - low]
                covered += high - low
        if covered != stop - start:
            raise CheckpointError(f"{self._folder}: {shard.name} ({items[0].piece.kind}) is not complete")
        return target

    def _file(self, name: str) -> np.memmap:
        if name not in self._files:
            if Path(name).name != name:
                raise CheckpointError(f"{self._folder / INDEX} names a file outside of the checkpoint: {name}")
            try:
                self._files[name] = np.memmap(self._folder / name, _DTYPE, mode="r")
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{self._folder / name} cannot be read: {error}") from None
        return self._files[name]



def _rows(array: np.ndarray, axis: int, low: int, high: int) -> np.ndarray:
    return array[(slice(None),) * axis + (slice(low, high),)]
