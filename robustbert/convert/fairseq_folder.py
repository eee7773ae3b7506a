"""Which file of a folder holds fairseq's model: of a release one, of a training the best of several."""

import re
from pathlib import Path

from robustbert.convert.errors import ConversionError

_IN_ORDER = ("model.pt", "checkpoint_best.pt", "checkpoint_last.pt")
_NUMBERED = re.compile(r"checkpoint_?(\d+)(?:_(\d+))?\.pt")  # checkpoint3.pt of an epoch, checkpoint_3_1000.pt of a step
_PART = re.compile(r"-(model_part|shard)-?\d+\.pt$")
_NUM_NAMED = 4


def find_model_file(folder: Path) -> tuple[Path, list[str]] | None:
    """The model's file in a folder, with a note where it was chosen among several; None where fairseq left none.

    model.pt, else the best checkpoint, else the last, else the one of the highest epoch and step.
    ConversionError: there are only parts of a model.
    """
    names = [path.name for path in folder.glob("*.pt") if path.is_file()]
    numbered = sorted((name for name in names if _NUMBERED.fullmatch(name)), key=_epoch_and_step, reverse=True)
    found = [*(name for name in _IN_ORDER if name in names), *numbered]
    if not found:
        for name in sorted(names):
            refuse_part(folder / name)
        return None
    chosen, *others = found
    if not others:
        return folder / chosen, []
    listed = ", ".join(others[:_NUM_NAMED]) + (f" and {len(others) - _NUM_NAMED} more" if len(others) > _NUM_NAMED else "")
    return folder / chosen, [f"of {len(found)} models in {folder} {chosen} was taken; name another file to take it: {listed}"]


def refuse_part(model_file: Path) -> None:
    """ConversionError for a file with one process' part of a model."""
    part = _PART.search(model_file.name)
    if part:
        kind = "tensor-parallel" if part[1] == "model_part" else "sharded (FSDP)"
        raise ConversionError(
            f"{model_file}: is one process' part of a {kind} model; have fairseq save it whole (one process), and convert that"
        )


def _epoch_and_step(name: str) -> tuple[int, int]:
    """Of a checkpoint of an epoch, which ends it, the step is above all others."""
    epoch, step = _NUMBERED.fullmatch(name).groups()
    return int(epoch), int(step) if step else 1 << 62
