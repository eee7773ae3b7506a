"""The production training step, assembled once: what robustbert/train/pretrain.py builds and runs, without its loop.

All stages train through open_session(), so a change of pretrain()'s interfaces is followed here and nowhere else.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from robustbert.checkpoint.manager import CheckpointManager
from robustbert.config import RunConfig, dump_config
from robustbert.data.batches import build_train_batches
from robustbert.data.prepare import prepared_data
from robustbert.data.tokenizer import load_tokenizer
from robustbert.device import Device, repeatable
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import Mesh, open_mesh
from robustbert.parallel.micro_batch_graph import MicroBatchGraph
from robustbert.parallel.pipeline import build_graph
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.train.metrics import Metrics
from robustbert.train.pretrain import train_step, with_tokenizer
from robustbert.train.start import Start
from robustbert.train.state import TrainState
from robustbert.train.stop_signal import NeverStop

_TIMEOUT_S = 60


class FixedBatches:
    """The same micro-batches at every step, in place of TrainBatches."""

    def __init__(self, micro_batches: list):
        self._micro_batches = micro_batches

    def micro_batches(self, step: int) -> list:
        return self._micro_batches

    def corpus_samples(self, step: int) -> dict[str, int]:
        return {}

    def close(self) -> None:
        """Nothing was started."""


def forget_compiled() -> None:
    """Between sessions of one process whose shapes differ: torch compiles a function only so often."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@dataclass
class Session:
    """One process' part of a job that trains step by step. config: resolved, with the tokenizer's sizes."""

    config: RunConfig
    mesh: Mesh
    model: object
    optimizer: object
    batches: object
    state: TrainState
    metrics: Metrics
    stop: NeverStop
    progress: Progress
    graph: MicroBatchGraph | None
    run: RunDirectory
    checkpoints: CheckpointManager

    def step(self) -> None:
        """One update by the production loop's own function. RuntimeError where it finds the step wrong."""
        trouble = train_step(
            self.config,
            self.mesh,
            self.model,
            self.optimizer,
            self.batches,
            self.state,
            self.metrics,
            self.stop,
            self.progress,
            self.graph,
        )
        if trouble:
            raise RuntimeError(f"step {self.state.step}: {trouble}")

    def lines(self) -> list[dict]:
        """The logged steps, as in metrics.jsonl."""
        return self.run.metrics()

    def losses(self) -> list[float]:
        """The loss of every logged step (each one with train.log_interval: 1)."""
        return [line["loss"] for line in self.lines()]


@contextlib.contextmanager
def open_session(
    config: RunConfig, run: RunDirectory, job: Job = Job(), device: Device | None = None, batches=None, resume: bool = False
) -> Iterator[Session]:
    """Build what pretrain() builds; the weights are the seed's, or with `resume` those of the run's newest checkpoint.

    device: where the detected one is not meant. batches: instead of the training data's. run: its data folder is prepared.
    """
    if torch.distributed.is_initialized():  # a session of this process that an exception has ended
        torch.distributed.destroy_process_group()
    torch.set_float32_matmul_precision("highest")  # fp32 products in fp32, not TF32: also where a default has changed
    prepared = prepared_data(config.data, run.data)
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    config = with_tokenizer(config, tokenizer)
    if job.rank == 0:
        run.config_file.write_text(dump_config(config))
    device = device or Device.detect(job, config.precision)
    progress = Progress()
    with (
        repeatable(config.train.deterministic),
        device.joined(job, _TIMEOUT_S) as store,
        open_mesh(device, config.parallel, _TIMEOUT_S) as mesh,
        Metrics(run, config, mesh, progress).closing() as metrics,
    ):
        model = build_model(
            config.model, config.parallel, mesh, config.precision, variable_lengths=config.data.has_variable_lengths
        )
        replays = config.train.cuda_graphs and device.is_cuda
        model = build_data_parallel(model, config.parallel, mesh, is_recorded=replays)
        optimizer = build_optimizer(config.optim, config.parallel, model, mesh, config.precision, config.train.steps)
        if batches is None:
            batches = build_train_batches(prepared, config.data, config.train, config.run.seed, mesh.dp_rank, mesh.dp_size)
        state = TrainState(tokenizer_sha256=tokenizer.sha256)
        start = Start(config, run, mesh, model, optimizer, tokenizer.sha256)
        checkpoints = CheckpointManager(config, run, mesh, store, model, optimizer, state)
        if not (resume and checkpoints.load_newest_good()):
            start.take()
        graph = build_graph(model, mesh) if replays else None
        metrics.start_interval()
        try:
            yield Session(
                config, mesh, model, optimizer, batches, state, metrics, NeverStop(), progress, graph, run, checkpoints
            )
        finally:
            batches.close()
