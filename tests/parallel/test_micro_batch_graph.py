"""Replayed micro-batches: the losses and gradients of computed ones. The recording is pretended: a replay computes again."""

import dataclasses

import pytest
import torch

from robustbert.config import ConfigError, load_config
from robustbert.job import Job
from robustbert.parallel.pipeline import build_graph, run_micro_batches
from robustbert.parallel.random import seed_dropout
from robustbert.testing import run_on_ranks
from tests.parallel.small_training import MODEL, Layout, Recipe, batches_of_step, opened

DROPPING = Recipe(model=dataclasses.replace(MODEL, dropout=0.1, attention_dropout=0.1), num_steps=4)


def pretend_for(model):
    """Like a recording: computes nothing yet, and every replay reads and writes the same places; it needs complete weights."""

    def record(function):
        report = torch.full((3,), float("nan"))

        def replay():
            assert all(group.param_gather_dispatched and group.param_gather_handle is None for group in model.bucket_groups)
            report.copy_(function())

        return report, replay

    return record


def train_with(job, replays: bool, data: int = 1):
    history = []
    with opened(job, Layout(data=data), DROPPING) as (mesh, model, optimizer):
        model.is_recorded = replays
        graph = build_graph(model, mesh, pretend_for(model)) if replays else None
        for step in range(DROPPING.num_steps):
            batches = [dataclasses.replace(b, most_predictions=20) for b in batches_of_step(step)][mesh.dp_rank :: mesh.dp_size]
            model.zero_grad_buffer()
            optimizer.zero_grad()
            losses = run_micro_batches(
                model,
                batches,
                mesh,
                lambda number: seed_dropout(1, step, number * mesh.dp_size + mesh.dp_rank, mesh),
                graph=graph,
            )
            update = optimizer.step(step)
            history.append((losses[0].item(), update.grad_norm))
    return history


@pytest.mark.parametrize("data", [1, 2])
def test_replayed_micro_batches_train_like_computed_ones(data):
    if data == 1:
        expected, found = train_with(Job(), False), train_with(Job(), True)
    else:
        expected, found = (run_on_ranks(train_with, 2, replays, data) for replays in (False, True))
        expected, found = sum(expected, []), sum(found, [])
    for (loss, norm), (replayed_loss, replayed_norm) in zip(expected, found, strict=True):
        assert replayed_loss == pytest.approx(loss, rel=1e-6) and replayed_norm == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("override", ["parallel.tensor=2", "parallel.pipeline=2", "precision=fp16", "data.format=doc-sentences"])
def test_what_cannot_be_recorded_is_refused(tmp_path, override):
    (tmp_path / "run.yaml").write_text(
        "model: {num_layers: 2, hidden_size: 32, ffn_hidden_size: 64, num_attention_heads: 2}\n"
        "data: {tokenizer: t, train: [{path: p}]}\ntrain: {cuda_graphs: true}\n"
    )
    load_config(tmp_path / "run.yaml")
    with pytest.raises(ConfigError, match="train.cuda_graphs cannot be had with"):
        load_config(tmp_path / "run.yaml", [override, "cluster.processes_per_node=2"])
