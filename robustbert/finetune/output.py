"""A finetuning's folder: what was asked, the state to resume from, the best model, the result.

settings.json   the command; a folder goes on only with the same
metrics.jsonl   a line every some steps, and one an epoch with the development scores
state.pt        everything that the next step depends on; replaced whole, removed at the end
model/          the model of the best epoch, as transformers reads it, with outputs_SPLIT.npz of the development sets
result.json     written last: the folder is finished
"""

import contextlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from robustbert.finetune.settings import FinetuneError


@dataclass(frozen=True)
class OutputFolder:
    """The files below `path`, which need not exist yet."""

    path: Path

    @property
    def settings_file(self) -> Path:
        return self.path / "settings.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def state_file(self) -> Path:
        return self.path / "state.pt"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def result_file(self) -> Path:
        return self.path / "result.json"

    def check(self, request: dict) -> dict | None:
        """The result where the folder is finished. FinetuneError where it is another command's; changes nothing."""
        if is_untouched(self.path):
            return None
        former = self._settings()
        if former is not None:
            former.pop("encoder", None)
        if former != request:
            raise FinetuneError(f"{self.path} {_difference(former, request)}; nothing is overwritten, choose another --output")
        return self.result()

    def begin(self, request: dict, encoder: Path) -> None:
        """Make the folder this command's. encoder: the folder of the model that the request's name stood for at this time."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.settings_file, request | {"encoder": str(encoder.absolute())})

    def encoder(self) -> Path | None:
        """What `begin` was told; None before, and where it is gone."""
        encoder = (self._settings() or {}).get("encoder")
        return Path(encoder) if encoder and Path(encoder).exists() else None

    def result(self) -> dict | None:
        """The content of result.json; None before the end."""
        return read_json(self.result_file) if self.result_file.exists() else None

    def _settings(self) -> dict | None:
        return read_json(self.settings_file) if self.settings_file.exists() else None

    def save_state(self, state: dict) -> None:
        """Replace the state, whole or not at all."""
        partial = self.state_file.with_suffix(".partial")
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.state_file)

    def load_state(self) -> dict | None:
        """The newest state, on the CPU; None where there is none."""
        if not self.state_file.exists():
            return None
        try:
            return torch.load(self.state_file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch has no class for a damaged file
            reason = " ".join(str(error).split())[:120]
            raise FinetuneError(f"{self.state_file} cannot be read ({reason}); remove it and training starts anew") from error

    def finish(self, result: dict) -> None:
        """Write the result and drop the state."""
        write_json(self.result_file, result)
        self.state_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def replaced_model(self):
        """A new folder to write into, which takes the model's place at the end.

        A process killed in between resumes from the state before, comes to the same model and writes it again.
        """
        partial, former = self.path / ".model.partial", self.path / ".model.former"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        shutil.rmtree(former, ignore_errors=True)
        if self.model.exists():
            self.model.rename(former)
        partial.rename(self.model)
        shutil.rmtree(former, ignore_errors=True)


def is_untouched(folder: Path) -> bool:
    """Whether the folder is not there, or has nothing in it but what a write that was cut off left."""
    return not folder.exists() or all(path.name.endswith(".partial") for path in folder.iterdir())


def write_json(path: Path, content) -> None:
    """Replace a JSON file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_json(path: Path):
    """The content of a JSON file; FinetuneError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FinetuneError(f"{path} cannot be read ({error}); it is damaged") from None


def _difference(former: dict | None, request: dict) -> str:
    if former is None:
        return "exists and is no finetuning's folder"
    flat = [{**content, **content.get("settings", {})} for content in (former, request)]
    name = next(key for key in {**flat[0], **flat[1]} if flat[0].get(key) != flat[1].get(key) and key != "settings")
    return f"belongs to a finetuning with {name} {flat[0].get(name)!r}, not {flat[1].get(name)!r}"
