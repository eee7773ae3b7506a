"""finetune: one model, one task, one seed, top to bottom; every process of the job runs it (section 5.1)."""

import importlib.metadata
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from robustbert.config import OptimConfig
from robustbert.device import Device
from robustbert.finetune.batches import collate, num_steps_per_epoch, step_micro_batches
from robustbert.finetune.evaluate import autocast, model_outputs, save_outputs
from robustbert.finetune.folders import encoder_folder, read_split, task_folder
from robustbert.finetune.models import num_positions, read_tokenizer
from robustbert.finetune.output import OutputFolder
from robustbert.finetune.progress import Quiet
from robustbert.finetune.replicas import Replicas, TreeSum
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import ModelSource, Task
from robustbert.job import Job
from robustbert.json_lines import append_line
from robustbert.optim.schedule import learning_rate

_LOG_STEPS = 20
_LIBRARIES = ("robustbert", "torch", "transformers", "tokenizers", "scikit-learn", "scipy", "numpy")


@dataclass(frozen=True)
class Request:
    """One finetuning as it was asked for. start_from: the folder of a former one, whose encoder is taken."""

    data: Path
    output: Path
    settings: Settings
    model: Path | None = None
    start_from: Path | None = None


def finetune(task: Task, request: Request, job: Job, view: Quiet) -> dict:
    """Finetune, or go on where a killed process left off; returns the content of result.json.

    All of it is a function of the request: neither the number of processes nor an interruption changes the result.
    """
    settings, output = request.settings, OutputFolder(request.output)
    device = Device.detect(job)
    with device.joined(job, timeout_s=3600.0):
        replicas = Replicas(job)
        if (finished := _open(output, task, request, replicas)) is not None:
            view.say(f"{request.output} is finished")
            return finished
        folder = task_folder(task, request.data)
        examples = {split: read_split(task, folder, split) for split in ("train", *task.dev_splits)}
        examples = {split: part for split, part in examples.items() if part is not None}
        _check_splits(task, folder, examples)
        source_folder = encoder_folder(request.model, request.start_from, request.output, replicas)
        source = ModelSource(
            source_folder, settings.seed, settings.dropout, settings.attention_dropout, settings.untrained
        )
        tokenizer, model = read_tokenizer(source_folder), task.build_model(source).to(device.torch_device)
        max_length = min(settings.max_length, num_positions(model))
        items = {
            split: task.items(_sample(part, settings) if split == "train" else part, tokenizer, max_length, split == "train")
            for split, part in examples.items()
        }
        training = Training(model, settings, num_steps_per_epoch(len(items["train"]), settings.batch_size), device, replicas)
        training.load(output.load_state())
        view.say(
            f"{task.name}: {len(items['train']):,} items, {training.total_steps:,} steps of {settings.batch_size}, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {job.world_size} process(es) on {device.torch_device}"
            + (f", resumed at step {training.step:,}" if training.step else "")
        )
        while not training.is_finished():
            loss = training.take_step(task, items["train"], tokenizer.pad_token_id)
            view.step(training.step, training.total_steps, loss, training.left_s())
            if replicas.rank == 0 and training.step % _LOG_STEPS == 0:
                append_line(output.metrics_file, {"step": training.step, "loss": loss, "lr": training.rate()})
            if training.at_epoch_end():
                outputs = {
                    split: model_outputs(
                        task, model, items[split], tokenizer.pad_token_id, settings.precision, device, replicas
                    )
                    for split in examples
                    if split != "train"
                }
                scores = {
                    split: task.metrics(examples[split], task.predictions(examples[split], items[split], outputs[split]))
                    for split in outputs
                }
                is_best = training.record_scores(scores, scores[task.dev_splits[0]][task.watched])
                view.say(_epoch_line(training, task, scores, is_best))
                if replicas.rank == 0:
                    append_line(output.metrics_file, {"step": training.step, "epoch": training.epoch, "dev": scores})
                    if is_best:
                        with output.replaced_model() as partial:
                            model.save_pretrained(partial)
                            tokenizer.save_pretrained(partial)
                            for split, values in outputs.items():
                                save_outputs(partial / f"outputs_{split}.npz", values)
            if replicas.rank == 0 and (training.at_epoch_end() or training.step % settings.save_steps == 0):
                output.save_state(training.state())
        result = _result(task, request, training, job, device)
        if replicas.rank == 0:
            output.finish(result)
        return result


class Training:
    """The model with its optimizer, and how far it has got."""

    def __init__(self, model, settings: Settings, steps_per_epoch: int, device: Device, replicas: Replicas):
        self.model, self._settings, self._device, self._replicas = model, settings, device, replicas
        self.steps_per_epoch, self.total_steps = steps_per_epoch, steps_per_epoch * settings.epochs
        self.step, self.seconds = 0, 0.0
        self.history: list[dict] = []  # one entry an epoch: epoch, step, watched, scores
        self._schedule = OptimConfig(lr=settings.lr, warmup_steps=math.ceil(settings.warmup_ratio * self.total_steps))
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
        )
        self._scaler = torch.amp.GradScaler(device.torch_device.type, enabled=settings.precision == "fp16")
        model.train()

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.step // self.steps_per_epoch

    @property
    def best(self) -> dict | None:
        """The epoch with the best watched score, the first of equals."""
        return max(self.history, key=lambda entry: entry["watched"], default=None)

    def at_epoch_end(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    def is_finished(self) -> bool:
        """All steps taken, or no better score for `patience` epochs."""
        patience = self._settings.patience
        is_stuck = patience and self.history and self.epoch - self.best["epoch"] >= patience
        return self.step >= self.total_steps or bool(is_stuck)

    def left_s(self) -> float:
        return self.seconds / self.step * (self.total_steps - self.step)

    def rate(self) -> float:
        """The learning rate of the next step."""
        return learning_rate(self._schedule, self.step, self.total_steps)

    def take_step(self, task: Task, items: list, pad_id: int) -> float:
        """One update; returns the mean loss of the batch's items. FinetuneError where it is not finite."""
        started, settings = time.monotonic(), self._settings
        micro_batches = step_micro_batches(
            items, self.step, settings.batch_size, settings.micro_batch_size, settings.seed
        )
        num_items = sum(map(len, micro_batches))
        total = TreeSum()
        for number in self._replicas.my_leaves(len(micro_batches)):
            # Dropout is a function of the place in the training, not of the process
            torch.manual_seed(dropout_seed(settings.seed, self.step, number))
            batch = collate(micro_batches[number], pad_id, self._device.torch_device)
            with autocast(self._device, settings.precision):
                loss = task.losses(self.model, batch).sum() / num_items
            self._scaler.scale(loss).backward()
            total.add([*self._take_gradients(), loss.detach().float().reshape(1)])
        *gradients, loss = total.total() or [*map(torch.zeros_like, self._parameters), torch.zeros(1, device=self._device.torch_device)]
        self._replicas.sum([*gradients, loss])
        if not math.isfinite(loss.item()):
            raise FinetuneError(
                f"the loss is {loss.item()} at step {self.step}: training has diverged; lower --lr, or use --precision bf16 or fp32"
            )
        self._update(gradients)
        self.step += 1
        self.seconds += time.monotonic() - started
        return loss.item()

    def record_scores(self, scores: dict, watched: float) -> bool:
        """Note an epoch's development scores; whether it is the best so far."""
        self.history.append({"epoch": self.epoch, "step": self.step, "watched": watched, "scores": scores})
        return self.best is self.history[-1]

    def state(self) -> dict:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load(self, state: dict | None) -> None:
        """Go on from a state; None: from the start."""
        if state is None:
            return
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])

    def _take_gradients(self) -> list[torch.Tensor]:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients

    def _update(self, gradients: list[torch.Tensor]) -> None:
        for parameter, gradient in zip(self._parameters, gradients):
            parameter.grad = gradient
        for group in self._optimizer.param_groups:
            group["lr"] = self.rate()
        if self._settings.clip_grad:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip_grad)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for parameter in self._parameters:
            parameter.grad = None


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """A number of 64 bits for this micro-batch, unlike those of its neighbours."""
    return int(np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)[0])


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases and LayerNorm weights, all of one dimension, do not (BERT's rule)."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]


def _open(output: OutputFolder, task: Task, request: Request, replicas: Replicas) -> dict | None:
    """Take the output folder, on one process; what it finds is told to all."""
    asked = {
        "task": task.name,
        "model": str(request.model.absolute()) if request.model else None,
        "start_from": str(request.start_from.absolute()) if request.start_from else None,
        "data": str(request.data.absolute()),
        "settings": asdict(request.settings),
    }
    mine = {}
    if replicas.rank == 0:
        try:
            mine["result"] = output.open(asked)
        except FinetuneError as error:
            mine["error"] = str(error)
    found = replicas.gather(mine)
    if "error" in found:
        raise FinetuneError(found["error"])
    return found["result"]


def _check_splits(task: Task, folder: Path, examples: dict) -> None:
    for split in ("train", task.dev_splits[0]):
        if not examples.get(split):
            raise FinetuneError(f"{folder} has no {split} set of {task.name}; is --data the folder of its official files?")


def _sample(examples: list, settings: Settings) -> list:
    if not settings.train_examples or settings.train_examples >= len(examples):
        return examples
    chosen = np.random.default_rng(settings.seed).choice(len(examples), settings.train_examples, replace=False)
    return [examples[i] for i in sorted(chosen)]


def _epoch_line(training: Training, task: Task, scores: dict, is_best: bool) -> str:
    parts = [f"epoch {training.epoch}"]
    for split, values in scores.items():
        parts.append(f"{split} " + "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    return "  ".join(parts) + ("  (best so far)" if is_best else "")


def _result(task: Task, request: Request, training: Training, job: Job, device: Device) -> dict:
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
        "settings": asdict(request.settings),
        "history": training.history,
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
