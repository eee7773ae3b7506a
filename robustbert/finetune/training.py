"""Training: a model with its optimizer, step by step, on one process of several (section 5.1, Table 10)."""

import math
import time
from collections.abc import Iterator

import numpy as np
import torch

from robustbert.config import OptimConfig
from robustbert.device import Device
from robustbert.finetune.batches import collate, num_items_of_step, num_steps_per_epoch, step_micro_batches
from robustbert.finetune.evaluate import autocast, one_cast
from robustbert.finetune.replicas import Replicas, TreeSum
from robustbert.finetune.settings import FinetuneError, Settings
from robustbert.finetune.task import Batch, Item, Task
from robustbert.finetune.transfer import on_device
from robustbert.optim.schedule import learning_rate


class Training:
    """The model with its optimizer, and how far it has got."""

    def __init__(
        self, task: Task, model, items: list[Item], pad_id: int, settings: Settings, device: Device, replicas: Replicas
    ):
        self.model, self.items = model, items
        self._task, self._pad_id, self._settings = task, pad_id, settings
        self._device, self._replicas = device, replicas
        self.steps_per_epoch = num_steps_per_epoch(len(items), settings.batch_size)
        self.total_steps = self.steps_per_epoch * settings.epochs
        self.step, self.seconds, self.lr = 0, 0.0, 0.0  # lr: of the last step
        self.history: list[dict] = []  # one entry an epoch: epoch, step, watched, scores
        self._schedule = OptimConfig(lr=settings.lr, warmup_steps=math.ceil(settings.warmup_ratio * self.total_steps))
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, settings.weight_decay),
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(device.torch_device.type, enabled=settings.precision == "fp16")
        self._batches: Iterator[Batch] | None = None  # this process' micro-batches from the next step on
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

    def take_step(self) -> float:
        """One update; returns the mean loss of the batch's items. FinetuneError where it is not finite.

        The host waits for the device once, for the loss, after it has given it all of the step; a model that diverged has been
        updated by then, but neither saved nor reported.
        """
        started, settings = time.monotonic(), self._settings
        if self._batches is None:
            self._batches = on_device(self._collated(self.step), self._device.torch_device)
        num_items = num_items_of_step(len(self.items), self.step, settings.batch_size)
        total = TreeSum()
        with one_cast(self._device):
            for number in self._my_micro_batches(num_items):
                batch = next(self._batches)
                # Dropout is a function of the place in the training, not of the process
                torch.manual_seed(dropout_seed(settings.seed, self.step, number))
                with autocast(self._device, settings.precision):
                    loss = self._task.losses(self.model, batch).sum() / num_items
                self._scaler.scale(loss).backward()
                total.add([*self._take_gradients(), loss.detach().float().reshape(1)])
        *gradients, loss = total.total() or self._zeros()
        self._replicas.sum([*gradients, loss])
        self._update(gradients)
        mean_loss = loss.item()
        if not math.isfinite(mean_loss):
            raise FinetuneError(
                f"the loss is {mean_loss} at step {self.step}: training has diverged; lower --lr, or use --precision bf16 or fp32"
            )
        self.step += 1
        self.seconds += time.monotonic() - started
        return mean_loss

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
        self._batches = None
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        for group in self._optimizer.param_groups:
            group["fused"], group["foreach"] = True, None  # the state may be one without

    def _my_micro_batches(self, num_items: int) -> range:
        """The numbers of this process' micro-batches in a step of so many items."""
        return self._replicas.my_leaves(-(-num_items // self._settings.micro_batch_size))

    def _collated(self, step: int) -> Iterator[Batch]:
        """This process' micro-batches of all steps from this one on, on the host."""
        settings = self._settings
        for step in range(step, self.total_steps):
            parts = step_micro_batches(self.items, step, settings.batch_size, settings.micro_batch_size, settings.seed)
            for number in self._my_micro_batches(sum(map(len, parts))):
                yield collate(self._task, parts[number], self._pad_id, training=True)

    def _take_gradients(self) -> list[torch.Tensor]:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        return gradients

    def _zeros(self) -> list[torch.Tensor]:
        """The terms of a process that has no micro-batch in this step."""
        return [*map(torch.zeros_like, self._parameters), torch.zeros(1, device=self._device.torch_device)]

    def _update(self, gradients: list[torch.Tensor]) -> None:
        for parameter, gradient in zip(self._parameters, gradients):
            parameter.grad = gradient
        self.lr = learning_rate(self._schedule, self.step, self.total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr
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
