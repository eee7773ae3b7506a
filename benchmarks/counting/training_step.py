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
from robustbert.model.attention import describe_rows
from robustbert.model.build import build_model
from robustbert.parallel.mesh import open_mesh
from robustbert.parallel.random import seed_dropout
from robustbert.parallel.transfer import Transfer
from robustbert.plan.simulated_cuda import Watch
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.simulation import attention_kernel, fake_job, simulated_process
from robustbert.progress import Progress
from robustbert.run_directory import RunDirectory
from robustbert.train.metrics import Metrics
from robustbert.train.pretrain import train_step
from robustbert.train.state import TrainState
from robustbert.train.stop_signal import NeverStop

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "base_500k.yaml"
MODELS = {
    "base": ("model.preset=roberta-base",),
    "large": ("model.preset=roberta-large",),
    "small": ("model={num_layers: 2, hidden_size: 128, ffn_hidden_size: 512, num_attention_heads: 2}",),
}
# Quickstart's own: the prose inside Python. The vocabulary is RoBERTa's all the same, the ids are just the lower ones.
TEXT, TOKENIZER_SIZE, VOCAB_SIZE, SEQUENCE_LENGTH = "python:stdlib", 4096, 50265, 512
PHASES = ("zeroing", "forward and backward", "updating the weights", "counting")


def load_run(
    model: str, precision: str, micro_batch: int, micro_batches: int, text: str = TEXT, num_processes: int = 1
) -> RunConfig:
    """The configuration of a data-parallel run whose steps are counted; micro_batches: of a process. text: as in data.train."""
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
            f"train.global_batch_size={micro_batch * micro_batches * num_processes}",
            "train.log_interval=1000",
            "model.compile=false",  # operators as they are, before a compiler fuses them
            "cluster.nodes=1",
            f"cluster.processes_per_node={num_processes}",
            "monitoring.tensorboard=false",
        ],
    )


def prepare(config: RunConfig, folder: Path) -> PreparedData:
    """The run's text as indexed data under `folder`; what is there is taken."""
    return prepare_run(config.data, folder)


def open_batches(config: RunConfig, prepared: PreparedData) -> TrainBatches:
    """The micro-batches of the first process' steps, on the host."""
    num_replicas = config.data_parallel_size(config.cluster.num_processes)
    return build_train_batches(prepared, config.data, config.train, config.run.seed, 0, num_replicas)


@dataclass(frozen=True)
class BatchFacts:
    """What a micro-batch is like as it goes to the model on a GPU."""

    has_padding: bool
    needs_mask: bool  # its attention, for the padding
    num_rows: int
    num_full_rows: int
    num_tokens: int  # padding included
    num_real_tokens: int
    num_masked: int  # positions that are predicted
    shape: tuple[int, int, int]  # rows, tokens of a row, predictions with those that only fill it up


def describe_batch(batch: Batch, kernel: str) -> BatchFacts:
    """The facts of a micro-batch. kernel: of attention."""
    (here,) = Transfer(torch.device("cpu"), packs=True)([batch])
    rows, length = here.tokens_BS.shape
    described = describe_rows(here.lengths_B, rows, length, kernel, torch.device("cpu"))
    full = int((here.lengths_B == length).sum())
    shape = rows, length, len(here.targets_M)
    return BatchFacts(
        full < rows, described.attended_B11S is not None, rows, full, rows * length, batch.num_real_tokens, here.num_masked_tokens, shape
    )


def kernel_of(config: RunConfig) -> str:
    """The run's attention kernel on a GPU that has all of them."""
    return attention_kernel(config, SimulatedDevice.of("cuda"))


@dataclass(frozen=True)
class CountedProcess:
    """The first process of a job, on a simulated GPU."""

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
    with simulated_process(config, config.cluster.num_processes, 0, device) as (mesh, model, optimizer):
        model.train()
        progress, state = PhaseProgress(enter), TrainState()
        with Metrics(RunDirectory(folder), config, mesh, progress).closing() as metrics:

            def step() -> None:
                trouble = train_step(config, mesh, model, optimizer, batches, state, metrics, NeverStop(), progress)
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
        length, num_rows = 16, 2
        rows = describe_rows(torch.tensor([length, length - 1]), num_rows, length, model.attention_kernel, torch.device("cpu"))
        yield model.layers["0"].train(), (torch.randn(num_rows * length, 1, 64, requires_grad=True), rows)
