"""Where a task's files and a model's weights lie."""

from pathlib import Path

from robustbert.convert.tokenizer_files import transformers_has_tokenizer
from robustbert.finetune.output import OutputFolder
from robustbert.finetune.settings import FinetuneError
from robustbert.finetune.task import Task


def task_folder(task: Task, data: Path) -> Path:
    """The task's own folder: `data`, or the one of that name below it (as in a folder of all of GLUE)."""
    if not data.is_dir():
        raise FinetuneError(f"{data} is no folder; --data takes the one with the official files of {task.name}")
    return next((data / name for name in task.folders if (data / name).is_dir()), data)


def read_split(task: Task, folder: Path, split: str) -> list | None:
    """The examples of a split; None where it has no file."""
    try:
        return task.read(folder, split)
    except FileNotFoundError:
        return None


def read_sets(task: Task, folder: Path) -> dict[str, list]:
    """The examples of the training set and of the development sets that are there, by split.

    FinetuneError where there is no training set or no first development set: it names the file that was looked for.
    """
    examples = {}
    for split in ("train", *task.dev_splits):
        try:
            examples[split] = task.read(folder, split)
        except FileNotFoundError as error:
            if split in ("train", task.dev_splits[0]):
                raise FinetuneError(
                    f"{folder} has no {split} set of {task.name}: there is no {error.filename or error}; "
                    "is --data the folder of its official files?"
                ) from None
    return examples


def encoder_folder(model: Path | None, start_from: Path | None, cache: Path, tokenizer: Path | None = None) -> Path:
    """The Hugging Face folder with the encoder to start from; outside of torch.distributed, any number of processes may ask.

    model: whatever tools/convert takes as its source, converted into `cache` unless it is a Hugging Face folder with a tokenizer.
    start_from: a former finetuning's output, finished. tokenizer: of a model that has none beside it.
    """
    if start_from is not None:
        former = OutputFolder(start_from)
        if former.result() is None:
            raise FinetuneError(f"--start-from {start_from}: no finished finetuning there (it has no result.json)")
        return former.model
    if model is None:
        raise FinetuneError("which model? name it with --model, or a former finetuning with --start-from")
    if tokenizer is None and (model / "config.json").exists() and transformers_has_tokenizer(model):
        return model
    from robustbert.convert.cache import as_huggingface_folder  # imports the engine

    return as_huggingface_folder(model, cache, tokenizer)
