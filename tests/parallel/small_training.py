"""A small model trained on made-up batches at any layout: what the tests of layouts and checkpoints share."""

import contextlib
import dataclasses
from dataclasses import dataclass, field

import torch

from robustbert.config import ModelConfig, OptimConfig, ParallelConfig
from robustbert.data.batches import Batch
from robustbert.device import Device
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import open_mesh
from robustbert.parallel.pipeline import forward_backward
from robustbert.parallel.random import seed_dropout

VOCAB_SIZE, SEQUENCE_LENGTH, ROWS, BATCHES_PER_STEP = 300, 16, 2, 8
MODEL = ModelConfig(
    num_layers=4,
    hidden_size=32,
    ffn_hidden_size=72,  # no multiple of the padding inside megatron-core's buffers
    num_attention_heads=4,
    vocab_size=VOCAB_SIZE,
    max_sequence_length=SEQUENCE_LENGTH,
    dropout=0.0,
    attention_dropout=0.0,
)


@dataclass(frozen=True)
class Layout:
    """How a test shards its model."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    sequence: bool = False
    distributed_optimizer: bool = True
    recompute: str = "none"

    @property
    def num_ranks(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def parallel(self) -> ParallelConfig:
        return ParallelConfig(
            tensor=self.tensor,
            pipeline=self.pipeline,
            sequence=self.sequence,
            distributed_optimizer=self.distributed_optimizer,
            recompute=self.recompute,
        )


@dataclass(frozen=True)
class Recipe:
    """What a test trains."""

    model: ModelConfig = MODEL
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-2, warmup_steps=5, clip_grad=1.0))
    precision: str = "fp32"
    num_steps: int = 20
    seed: int = 3
    has_pairs: bool = False  # pairs of segments, in micro-batches of different widths


PAIRS = Recipe(model=dataclasses.replace(MODEL, num_token_types=2, next_sentence_head=True), num_steps=8, has_pairs=True)


def batches_of_step(step: int, has_pairs: bool = False) -> list[Batch]:
    """The step's whole global batch; some rows are padded, and the micro-batches have different numbers of masks."""
    generator = torch.Generator().manual_seed(step)
    batches = []
    for number in range(BATCHES_PER_STEP):
        width = SEQUENCE_LENGTH - 2 * (number % 3) if has_pairs else SEQUENCE_LENGTH
        tokens = torch.randint(5, VOCAB_SIZE, (ROWS, width), generator=generator)
        tokens[0, width - 4 :] = 1
        attended = tokens != 1
        chosen = (torch.rand(tokens.shape, generator=generator) < 0.3) & attended
        positions = chosen.flatten().nonzero()[:, 0]
        targets = tokens.flatten()[positions]
        masked = tokens.masked_fill(chosen, 4)
        pair = ()
        if has_pairs:
            token_types = (torch.arange(width) >= width // 2).long().expand_as(tokens).contiguous()
            is_next = torch.randint(0, 2, (ROWS,), generator=generator)
            is_next[1] = -1 if number == 0 else is_next[1]  # filler
            pair = token_types, is_next
        batches.append(Batch(masked, attended, positions, targets, int(attended.sum()), *pair))
    return batches


@contextlib.contextmanager
def opened(job: Job, layout: Layout, recipe: Recipe):
    """(mesh, model, optimizer) of a rank."""
    device = Device.detect(job)
    with device.joined(job, 60), open_mesh(device, layout.parallel) as mesh:
        model = build_model(recipe.model, layout.parallel, mesh, recipe.precision, recipe.seed, recipe.has_pairs)
        model = build_data_parallel(model, layout.parallel, mesh)
        optimizer = build_optimizer(
            recipe.optim, layout.parallel, model, mesh, recipe.precision, total_steps=recipe.num_steps
        )
        yield mesh, model, optimizer


def run_step(mesh, model, optimizer, recipe: Recipe, step: int):
    """One update; returns (loss, Update)."""
    mine = batches_of_step(step, recipe.has_pairs)[mesh.dp_rank :: mesh.dp_size]
    model.zero_grad_buffer()
    optimizer.zero_grad()

    def seed_micro_batch(number):
        seed_dropout(recipe.seed, step, number * mesh.dp_size + mesh.dp_rank, mesh)

    total = forward_backward(model, mine, mesh, before_micro_batch=seed_micro_batch)
    update = optimizer.step(step)
    return total.over_data_parallel(mesh).mean, update


def train(job: Job, layout: Layout, recipe: Recipe) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step; the same on every rank."""
    with opened(job, layout, recipe) as (mesh, model, optimizer):
        history = []
        for step in range(recipe.num_steps):
            loss, update = run_step(mesh, model, optimizer, recipe, step)
            history.append((loss, update.grad_norm))
        return history
