"""Metrics: one line of metrics.jsonl a logged step, written by the main process."""

import contextlib
import math
import time

import torch

from robustbert.config import RunConfig
from robustbert.data.batches import TrainBatches
from robustbert.optim.build import Update
from robustbert.parallel.mesh import Mesh
from robustbert.parallel.pipeline import LossSum
from robustbert.run_directory import RunDirectory
from robustbert.train.exporter import Exporter
from robustbert.train.state import TrainState
from robustbert.throughput import peak_flops, training_flops


class Metrics:
    """Collects what happens between two logged steps; rates are means over them."""

    def __init__(self, run: RunDirectory, config: RunConfig, mesh: Mesh):
        self._run = run
        self._config = config
        self._mesh = mesh
        self._exporter = Exporter(config.monitoring, run) if mesh.is_main else None
        name = torch.cuda.get_device_name() if mesh.device.is_cuda else "cpu"
        self._peak = peak_flops(name, config.precision)
        self.start_interval()

    def start_interval(self) -> None:
        """Rates are counted from now on."""
        self._since = time.perf_counter()
        self._steps = self._tokens = self._flops = self._data_wait_s = 0

    @contextlib.contextmanager
    def paused(self):
        """What takes place inside (an evaluation, a checkpoint) is not the steps' time."""
        paused_at = time.perf_counter()
        yield
        self._since += time.perf_counter() - paused_at

    def close(self) -> None:
        """Nothing is recorded any more."""
        if self._exporter is not None:
            self._exporter.close()

    def record(
        self, state: TrainState, total: LossSum, tokens: int, width: float, update: Update, batches: TrainBatches
    ) -> None:
        """One step; state is already advanced. total and tokens: of this step, over the whole job; width: of its rows."""
        loss, num_masked = total.mean, total.num_masked_tokens
        self._steps += 1
        self._tokens += tokens
        self._flops += training_flops(self._config.model, tokens, num_masked, width)
        self._data_wait_s += batches.wait_s
        is_last = state.step == self._config.train.steps
        if not self._mesh.is_main or (state.step % self._config.train.log_interval and not is_last):
            return
        elapsed = time.perf_counter() - self._since
        flops_per_process = self._flops / elapsed / self._mesh.world_size
        line = {
            "time": round(time.time(), 3),
            "step": state.step,
            "loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),
            "lr": update.lr,
            "grad_norm": update.grad_norm,
            "loss_scale": update.loss_scale,
            "skipped_steps": state.skipped_steps,
            "tokens": state.tokens,
            "tokens_per_s": self._tokens / elapsed,
            "step_time_s": elapsed / self._steps,
            "data_wait_s": self._data_wait_s / self._steps,
            "tflops": flops_per_process / 1e12,
            "mfu": flops_per_process / self._peak if self._peak else None,
            "corpus_samples": batches.corpus_samples(state.data_step),
        }
        if total.num_pairs:
            line["next_sentence_loss"] = total.next_sentence_loss / total.num_pairs
            line["next_sentence_accuracy"] = total.num_right / total.num_pairs
        self._run.append_metrics(line)
        self._exporter.show(line)
        self.start_interval()
