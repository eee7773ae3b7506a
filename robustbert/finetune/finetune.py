"""finetune: one model, one task, one seed, top to bottom; every process of the job runs it (section 5.1)."""

import importlib.metadata
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from robustbert.convert.file_modes import share_weights_like
from robustbert.device import Device
from robustbert.finetune.evaluate import model_outputs, outputs_file, save_outputs
from robustbert.finetune.folders import encoder_folder, read_sets, task_folder
from robustbert.finetune.models import num_positions, place, read_tokenizer
from robustbert.finetune.output import OutputFolder
from robustbert.finetune.progress import Quiet
from robustbert.finetune.replicas import Replicas
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import ModelSource, Task
from robustbert.finetune.training import Training
from robustbert.job import Job
from robustbert.json_lines import append_line

_LOG_STEPS = 20
_JOIN_TIMEOUT_S = 3600.0  # a process may wait for another's evaluation, or for the first one to write the model
_LIBRARIES = ("robustbert", "torch", "transformers", "tokenizers", "scikit-learn", "scipy", "numpy")


@dataclass(frozen=True)
class Request:
    """One finetuning as it was asked for. start_from: the folder of a former one, whose encoder is taken."""

    data: Path
    output: Path
    settings: Settings
    model: Path | None = None
    start_from: Path | None = None
    tokenizer: Path | None = None  # of a model without one beside it
    compiled: bool = False  # how it is computed, not what: a folder goes on with either

    @property
    def cache(self) -> Path:
        """Where a model of another format is kept converted: shared by the finetunings side by side."""
        return self.output.absolute().parent / ".converted"


def finetune(task: Task, request: Request, job: Job, view: Quiet) -> dict:
    """Finetune, or go on where a killed process left off; returns the content of result.json.

    All of it is a function of the request: neither the number of processes nor an interruption changes the result.
    """
    settings, output = request.settings, OutputFolder(request.output)
    folder = None
    if not output.result():
        folder = output.encoder() or encoder_folder(request.model, request.start_from, request.cache, request.tokenizer)
    device = Device.detect(job, settings.precision)
    with device.joined(job, _JOIN_TIMEOUT_S):
        replicas = Replicas(job)
        asked = _asked(task, request)
        if (finished := _finished(output, asked, replicas)) is not None:
            view.say(f"{request.output} is finished")
            return finished
        examples = _read(task, request)
        source = ModelSource(folder, settings.seed, settings.dropout, settings.attention_dropout, settings.untrained)
        tokenizer = read_tokenizer(folder)
        model = place(task.build_model(source), device.torch_device, settings.precision, request.compiled)
        max_length = min(settings.max_length, num_positions(model))
        items = {split: task.items(part, tokenizer, max_length, split == "train") for split, part in examples.items()}
        if not items["train"]:
            raise FinetuneError(f"{request.data}: no training example of {task.name} can be used")
        training = Training(task, model, items["train"], tokenizer.pad_token_id, settings, device, replicas)
        training.load(output.load_state())
        if replicas.rank == 0:
            output.begin(asked, folder)
        view.say(_first_line(task, training, job, device))
        shared_by = -(-settings.batch_size // settings.micro_batch_size)
        if shared_by < job.world_size:
            view.say(
                f"only {shared_by} of {job.world_size} processes have work: a batch of {settings.batch_size} has that many micro-batches "
                f"of {settings.micro_batch_size}; lower --micro-batch-size"
            )
        while not training.is_finished():
            loss = training.take_step()
            view.step(training.step, training.total_steps, loss, training.left_s())
            if replicas.rank == 0 and training.step % _LOG_STEPS == 0:
                append_line(output.metrics_file, {"step": training.step, "loss": loss, "lr": training.lr})
            if training.at_epoch_end():
                dev = score_dev_sets(task, training.model, examples, items, tokenizer, settings, device, replicas)
                is_best = training.record_scores(dev.scores, dev.scores[task.dev_splits[0]][task.watched])
                view.say(_epoch_line(training, dev.scores, is_best))
                if replicas.rank == 0:
                    append_line(output.metrics_file, {"step": training.step, "epoch": training.epoch, "dev": dev.scores})
                    if is_best:
                        _save_model(output, task, model, tokenizer, examples, items, dev)
            if replicas.rank == 0 and (training.at_epoch_end() or training.step % settings.save_steps == 0):
                output.save_state(training.state())
        result = _result(task, request, folder, training, job, device)
        if replicas.rank == 0:
            output.finish(result)
        return result


def _read(task: Task, request: Request) -> dict[str, list]:
    """The examples of the training set (or a sample of it) and of the development sets that are there."""
    folder = task_folder(task, request.data)
    examples = read_sets(task, folder)
    count = request.settings.train_examples
    if 0 < count < len(examples["train"]):
        chosen = np.random.default_rng(request.settings.seed).choice(len(examples["train"]), count, replace=False)
        examples["train"] = [examples["train"][i] for i in sorted(chosen)]
    return examples


@dataclass(frozen=True)
class DevResults:
    """What a model says of the development sets, by split."""

    outputs: dict[str, list[np.ndarray]]
    predictions: dict[str, list]
    scores: dict[str, dict[str, float]]


def score_dev_sets(
    task: Task, model, examples: dict, items: dict, tokenizer, settings: Settings, device: Device, replicas: Replicas
) -> DevResults:
    """Ask the model about every development set that is there."""
    results = DevResults({}, {}, {})
    for split in (split for split in task.dev_splits if split in examples):
        outputs = model_outputs(task, model, items[split], tokenizer.pad_token_id, settings.precision, device, replicas)
        predictions = task.predictions(examples[split], items[split], outputs)
        results.outputs[split], results.predictions[split] = outputs, predictions
        results.scores[split] = task.metrics(examples[split], predictions)
    return results


def _save_model(output: OutputFolder, task: Task, model, tokenizer, examples: dict, items: dict, dev: DevResults) -> None:
    """The model of the best epoch so far, with what it says of the development sets."""
    with output.replaced_model() as folder:
        model.save_pretrained(folder)
        share_weights_like(folder / "config.json")
        tokenizer.model_max_length = min(tokenizer.model_max_length, num_positions(model))
        tokenizer.save_pretrained(folder)
        for split in dev.outputs:
            save_outputs(folder / outputs_file(split), items[split], dev.outputs[split])
            for name, text in task.prediction_files(split, examples[split], dev.predictions[split]).items():
                (folder / name).write_text(text, encoding="utf-8")


def _asked(task: Task, request: Request) -> dict:
    """The command, as settings.json keeps it."""
    return {
        "task": task.name,
        "model": str(request.model.absolute()) if request.model else None,
        "start_from": str(request.start_from.absolute()) if request.start_from else None,
        "data": str(request.data.absolute()),
        "settings": asdict(request.settings),
    }


def _finished(output: OutputFolder, asked: dict, replicas: Replicas) -> dict | None:
    """The result of a finished folder; one process looks, all learn it."""
    mine = {}
    if replicas.rank == 0:
        try:
            mine["result"] = output.check(asked)
        except FinetuneError as error:
            mine["error"] = str(error)
    found = replicas.gather(mine)
    if "error" in found:
        raise FinetuneError(found["error"])
    return found["result"]


def _first_line(task: Task, training: Training, job: Job, device: Device) -> str:
    num_parameters = sum(parameter.numel() for parameter in training.model.parameters())
    return (
        f"{task.name}: {len(training.items):,} items, {training.total_steps:,} steps, {num_parameters:,} parameters, "
        f"{job.world_size} process{'es' if job.world_size > 1 else ''} on {device.torch_device.type}"
        + (f", resumed at step {training.step:,}" if training.step else "")
    )


def _epoch_line(training: Training, scores: dict, is_best: bool) -> str:
    parts = [f"epoch {training.epoch}"]
    for split, values in scores.items():
        parts.append(f"{split} " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return "  ".join(parts) + ("  (best so far)" if is_best else "")


def _result(task: Task, request: Request, folder: Path, training: Training, job: Job, device: Device) -> dict:
    best = training.best
    return {
        "task": task.name,
        "watched": {"split": task.dev_splits[0], "metric": task.watched, "value": best["watched"]},
        "metrics": best["scores"],
        "best_epoch": best["epoch"],
        "epochs": training.epoch,
        "steps": training.step,
        "seed": request.settings.seed,
        "seconds": round(training.seconds, 2),
        "processes": job.world_size,
        "device": str(device.torch_device),
        "model": str(request.model or ""),
        "start_from": str(request.start_from or ""),
        "encoder": str(folder),
        "settings": asdict(request.settings),
        "history": training.history,
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
