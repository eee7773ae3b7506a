"""Metrics: what each process reports at a logged step; the main process' part of it is a line of metrics.jsonl."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from robustbert.config import RunConfig
from robustbert.data.batches import TrainBatches
from robustbert.optim.build import Update
from robustbert.parallel.mesh import Mesh
from robustbert.parallel.pipeline import LossSum
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.throughput import peak_flops, training_flops
from robustbert.train.state import TrainState
from robustbert.train.step_times import IntervalTimes, StepTimes
from robustbert.train.tensorboard import TensorBoard


class Metrics:
    """Collects what happens between two logged steps; rates are means over them."""

    def __init__(self, run: RunDirectory, config: RunConfig, mesh: Mesh, progress: Progress):
        self._run = run
        self._config = config
        self._mesh = mesh
        self._progress = progress
        self._times = StepTimes(progress, mesh.collective_time, config.monitoring.collectives_interval)
        self._process = psutil.Process()
        self._tensorboard = TensorBoard(run) if mesh.is_main and config.monitoring.tensorboard else None
        name = torch.cuda.get_device_name() if mesh.device.is_cuda else "cpu"
        self._peak = peak_flops(name, config.precision)
        self.start_interval()

    def start_interval(self) -> None:
        """Rates are counted from now on."""
        self._times.take()
        self._steps = self._tokens = self._flops = 0

    @contextmanager
    def closing(self) -> Iterator["Metrics"]:
        """Afterwards nothing is measured any more."""
        try:
            yield self
        finally:
            self._times.close()
            if self._tensorboard:
                self._tensorboard.close()

    def record_evaluation(self, step: int, perplexity: float | None) -> None:
        """An evaluation on held-out text, for TensorBoard; None where there is no such text."""
        if self._tensorboard and perplexity is not None:
            self._tensorboard.show_evaluation(step, perplexity, time.time())

    def record(self, state: TrainState, total: LossSum, tokens: int, width: float, update: Update, batches: TrainBatches) -> None:
        """One step; state is already advanced. total and tokens: of this step, over the whole job; width: of its rows."""
        self._steps += 1
        self._tokens += tokens
        self._flops += training_flops(self._config.model, tokens, total.num_masked_tokens, width)
        is_last = state.step == self._config.train.steps
        if state.step % self._config.train.log_interval and not is_last:
            return
        times = self._times.take()
        report = self._rank_report(state.step, times)
        if self._mesh.is_main:
            report["metrics"] = line = self._line(state, total, update, batches, times)
            self._run.append_metrics(line)
            if self._tensorboard:
                self._tensorboard.show(line)
        self._progress.report(report)
        self._steps = self._tokens = self._flops = 0

    def _line(self, state: TrainState, total: LossSum, update: Update, batches: TrainBatches, times: IntervalTimes) -> dict:
        """What is the whole job's, and the times of this process; `evaluating_s` and `checkpointing_s` are sums, not means."""
        flops_per_process = self._flops / times.steps_s / self._mesh.world_size
        line = {
            "time": round(time.time(), 3),
            "step": state.step,
            "loss": total.mean,
            "perplexity": math.exp(min(total.mean, 700.0)),
            "lr": update.lr,
            "grad_norm": update.grad_norm,
            "loss_scale": update.loss_scale,
            "skipped_steps": state.skipped_steps,
            "tokens": state.tokens,
            "tokens_per_s": self._tokens / times.steps_s,
            "step_time_s": times.steps_s / self._steps,
            **{f"{part}_s": seconds / self._steps for part, seconds in times.parts.items()},
            "evaluating_s": times.evaluating_s,
            "checkpointing_s": times.checkpointing_s,
            "tflops": flops_per_process / 1e12,
            "mfu": flops_per_process / self._peak if self._peak else None,
            "corpus_samples": batches.corpus_samples(state.data_step),
        }
        if total.num_pairs:
            line["next_sentence_loss"] = total.next_sentence_loss / total.num_pairs
            line["next_sentence_accuracy"] = total.num_right / total.num_pairs
        return line

    def _rank_report(self, step: int, times: IntervalTimes) -> dict:
        """What is this process' alone: seconds a step by part, bytes by kind of memory."""
        memory = {"host": self._process.memory_info().rss}
        if self._mesh.device.is_cuda:
            memory |= {"device": torch.cuda.memory_allocated(), "device_peak": torch.cuda.max_memory_allocated()}
            torch.cuda.reset_peak_memory_stats()  # a peak is that of the steps since the last report
        return {
            "time": round(time.time(), 3),
            "step": step,
            "stage": self._mesh.pp_rank,
            "parts": {part: seconds / self._steps for part, seconds in times.parts.items()},
            "own_s": (times.steps_s - times.parts["collectives"]) / self._steps,
            "memory": memory,
        }
