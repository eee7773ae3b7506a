"""Ensembles of finetuned models of one task: their outputs averaged (section 5.1: 5 to 7 models a task)."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustbert.device import Device
from robustbert.finetune.evaluate import load_outputs, model_outputs, outputs_file, save_outputs
from robustbert.finetune.folders import read_split, task_folder
from robustbert.finetune.models import num_positions, place, read_tokenizer
from robustbert.finetune.output import OutputFolder
from robustbert.finetune.progress import Lines, Quiet
from robustbert.finetune.replicas import Replicas
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import Task
from robustbert.job import Job

_JOIN_TIMEOUT_S = 3600.0  # a process may wait for another's share of a large test set


@dataclass(frozen=True)
class Answers:
    """What an ensemble says of a split: one prediction an example."""

    examples: list
    predictions: list


class Ensemble:
    """Finished finetunings of one task. Outputs that are computed are kept beside each model."""

    def __init__(self, task: Task, members: list[Path], data: Path, device: Device, replicas: Replicas, view: Quiet):
        if not members:
            raise FinetuneError("an ensemble needs at least one model")
        self.task, self.members = task, [OutputFolder(member) for member in members]
        self._data, self._device, self._replicas, self._view = task_folder(task, data), device, replicas, view
        for member in self.members:
            result = member.result()
            if result is None:
                raise FinetuneError(f"{member.path}: no finished finetuning there (it has no result.json)")
            if result["task"] != task.name:
                raise FinetuneError(f"{member.path}: is a finetuning of {result['task']}, not of {task.name}")

    def answers(self, split: str) -> Answers | None:
        """The ensemble's predictions; None where the split has no file."""
        examples = read_split(self.task, self._data, split)
        if examples is None:
            return None
        items, outputs = self._outputs(self.members[0], split, examples)
        others = [outputs]
        for member in self.members[1:]:
            others.append(self._outputs(member, split, examples)[1])
            if list(map(np.shape, others[-1])) != list(map(np.shape, outputs)):  # windows depend on the tokenizer
                raise FinetuneError(
                    f"{member.path} cuts {split} otherwise than {self.members[0].path}; take models of one tokenizer"
                )
        if len(others) > 1:
            outputs = [self.task.average(parts) for parts in zip(*others)]
        return Answers(examples, self.task.predictions(examples, items, outputs))

    def _outputs(self, member: OutputFolder, split: str, examples: list) -> tuple[list, list[np.ndarray]]:
        tokenizer = read_tokenizer(member.model)
        settings = Settings(**member.result()["settings"])
        model = place(self.task.load_model(member.model), self._device.torch_device, settings.precision)
        items = self.task.items(examples, tokenizer, min(settings.max_length, num_positions(model)), False)
        file = member.model / outputs_file(split)
        known = load_outputs(file, items)
        if known is not None:
            return items, known
        self._view.say(f"{self.task.name}: {len(items):,} items of {split} by {member.path}")
        outputs = model_outputs(
            self.task, model, items, tokenizer.pad_token_id, settings.precision, self._device, self._replicas
        )
        if self._replicas.rank == 0:
            save_outputs(file, items, outputs)
        self._replicas.barrier()  # the others may ask for the file next
        return items, outputs


@contextlib.contextmanager
def open_ensembles(data: Path, job: Job) -> Iterator[Callable[[Task, list[Path]], Ensemble]]:
    """Inside, the function that it yields builds ensembles, which all processes of the job ask together."""
    device = Device.detect(job)
    with device.joined(job, _JOIN_TIMEOUT_S):
        replicas, view = Replicas(job), Quiet() if job.rank else Lines()
        yield lambda task, members: Ensemble(task, members, data, device, replicas, view)


def best_members(cells: list[tuple], task: str, size: int) -> list[Path]:
    """The `size` finished finetunings of a task with the best development scores, of a sweep's (cell, output) pairs."""
    outputs = [output for cell, output in cells if cell.task == task]
    finished = [(result["watched"]["value"], output.path) for output in outputs if (result := output.result())]
    if len(finished) < size:
        raise FinetuneError(
            f"{task} has {len(finished)} finished finetunings, {size} were asked for; finish the sweep, or take a smaller --size"
        )
    return [path for _, path in sorted(finished, key=lambda pair: (-pair[0], str(pair[1])))[:size]]
