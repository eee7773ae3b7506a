"""The step that is counted: the training loop's own, on a simulated GPU. All that counting knows of the model's interface is here."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from robustbert.config import RunConfig, load_config
from robustbert.data.batches import Batch, TrainBatches, build_train_batches
from robustbert.data.prepare import PreparedData, prepare_run
from robustbert.model.build import build_model
from robustbert.parallel.mesh import open_mesh
from robustbert.parallel.random import seed_dropout
from robustbert.plan.simulated_cuda import Watch
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.simulation import fake_job, simulated_process
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.train.metrics import Metrics
from robustbert.train.pretrain import train_step
from robustbert.train.state import TrainState

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "base_500k.yaml"
MODELS = {
    "base": ("model.preset=roberta-base",),
    "large": ("model.preset=roberta-large",),
    "small": ("model={num_layers: 2, hidden_size: 128, ffn_hidden_size: 512, num_attention_heads: 2}",),
}
# Quickstart's own: the prose inside Python. The vocabulary is RoBERTa's all the same, the ids are just the lower ones.
TEXT, TOKENIZER_SIZE, VOCAB_SIZE, SEQUENCE_LENGTH = "python:stdlib", 4096, 50265, 512
PHASES = ("zeroing", "forward and backward", "updating the weights", "counting")


def load_run(model: str, precision: str, micro_batch: int, micro_batches: int, text: str = TEXT) -> RunConfig:
    """The configuration of a run on one process whose steps are counted; text: as in data.train."""
    return load_config(
        CONFIG,
        [
            *MODELS[model],
            f"model.vocab_size={VOCAB_SIZE}",
            f"precision={precision}",
            f"data.train=[{{text: '{text}'}}]",
            f"data.tokenizer={{train: {{vocab_size: {TOKENIZER_SIZE}}}}}",
            f"data.sequence_length={SEQUENCE_LENGTH}",
            "data.valid=[]",
            "data.valid_fraction=0",
            "data.num_workers=0",
            f"train.micro_batch_size={micro_batch}",
            f"train.global_batch_size={micro_batch * micro_batches}",
            "train.log_interval=1000",
            "cluster.nodes=1",
            "cluster.processes_per_node=1",
            "monitoring.tensorboard=false",
        ],
    )


def prepare(config: RunConfig, folder: Path) -> PreparedData:
    """The run's text as indexed data under `folder`; what is there is taken."""
    return prepare_run(config.data, folder)


def open_batches(config: RunConfig, prepared: PreparedData) -> TrainBatches:
    """The micro-batches of the run's steps, on the host."""
    return build_train_batches(prepared, config.data, config.train, config.run.seed, 0, 1)


@dataclass(frozen=True)
class BatchFacts:
    """What a micro-batch is like."""

    has_mask: bool
    num_rows: int
    num_full_rows: int
    num_tokens: int  # padding included
    num_real_tokens: int
    num_masked: int  # positions that are predicted, as many as the tensors have


def describe_batch(batch: Batch) -> BatchFacts:
    """The facts of a micro-batch as it goes to the model."""
    rows, length = batch.tokens_BS.shape
    full = rows if batch.attended_BS is None else int(batch.attended_BS.all(1).sum())
    return BatchFacts(batch.attended_BS is not None, rows, full, rows * length, batch.num_real_tokens, len(batch.targets_M))


@dataclass(frozen=True)
class CountedProcess:
    """A process of one, on a simulated GPU."""

    num_parameters: int
    num_tensors: int
    encoder_end: torch.nn.Module  # whose output the head and the loss begin with
    step: Callable[[], None]  # trains for the next step


class PhaseProgress(Progress):
    """Tells of the phases of a step; the first part of the second one, before a micro-batch begins, is the zeroing."""

    def __init__(self, enter: Callable[[str], None]):
        super().__init__()
        self._enter = enter

    def mark(self, phase: str, step: int | None = None) -> None:
        is_zeroing = phase == "forward and backward" and self.phase == "waiting for data"
        super().mark(phase, step)
        self._enter("zeroing" if is_zeroing else phase)


@contextlib.contextmanager
def counted_process(
    config: RunConfig, batches: TrainBatches, folder: Path, watch: Watch, enter: Callable[[str], None]
) -> Iterator[CountedProcess]:
    """A process whose steps run train.pretrain.train_step on real micro-batches.

    watch: is told of waits (plan.simulated_cuda). enter: is told of every phase of a step that begins. folder: for the run's files.
    """
    device = SimulatedDevice.of("cuda", watch)
    with simulated_process(config, 1, 0, device) as (mesh, model, optimizer):
        model.train()
        progress, state = PhaseProgress(enter), TrainState()
        with Metrics(RunDirectory(folder), config, mesh, progress).closing() as metrics:

            def step() -> None:
                trouble = train_step(config, mesh, model, optimizer, batches, state, metrics, progress)
                assert trouble is None and state.skipped_steps == 0, (trouble, state)

            parameters = list(model.parameters())
            last_layer = list(model.module.layers.values())[-1]
            yield CountedProcess(sum(p.numel() for p in parameters), len(parameters), last_layer, step)


@contextlib.contextmanager
def real_layer(config: RunConfig) -> Iterator[tuple[torch.nn.Module, tuple]]:
    """(an encoder layer of a small model in training, with dropout; its arguments, padding included) on the CPU, with memory."""
    small = dataclasses.replace(
        config.model, preset=None, num_layers=1, hidden_size=64, ffn_hidden_size=128, num_attention_heads=1, vocab_size=512
    )
    assert small.dropout and small.attention_dropout
    with fake_job(0, 1), open_mesh(SimulatedDevice.of("cpu"), config.parallel) as mesh:
        model = build_model(small, config.parallel, mesh, "fp32", seed=1)
        seed_dropout(1, 0, 0, mesh)
        length, rows = 16, 2
        attended_B11S = (torch.arange(length) < length - 1).expand(rows, 1, 1, length)
        yield model.layers["0"].train(), (torch.randn(length, rows, 64, requires_grad=True), attended_B11S)
