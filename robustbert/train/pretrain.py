"""pretrain: one pretraining run, top to bottom (RoBERTa, sections 2 to 5)."""

import dataclasses
import math
from functools import partial

from robustbert.checkpoint.manager import CheckpointManager
from robustbert.config import ConfigError, RunConfig
from robustbert.config.yaml_file import config_to_dict
from robustbert.data.batches import build_train_batches, build_valid_batches
from robustbert.data.prepare import PreparedData, prepared_data, unigram_perplexity
from robustbert.data.tokenizer import Tokenizer, load_tokenizer
from robustbert.device import Device
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import Mesh, open_mesh
from robustbert.parallel.pipeline import forward_backward
from robustbert.parallel.random import seed_dropout
from robustbert.run_directory import RunDirectory
from robustbert.train.evaluate import Evaluation
from robustbert.train.metrics import Metrics
from robustbert.train.state import TrainState
from robustbert.train.stop_signal import StopSignal


class TrainingDiverged(ValueError):
    """The loss is no longer finite; the same steps from the same checkpoint would give the same."""


def pretrain(config: RunConfig, job: Job, run: RunDirectory) -> str:
    """Train until train.steps or until told to stop; every process of the job runs this function.

    Goes on from the run's newest good checkpoint. Returns "finished" or "preempted", with a checkpoint of the last
    step on disk either way. ValueError (ConfigError, DataError, CheckpointError) for what a restart cannot cure.
    """
    prepared = prepared_data(config.data, run.data)
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    config = with_tokenizer(config, tokenizer)
    device = Device.detect(job)
    timeout_s = config.fault_tolerance.hang_timeout_s
    with device.joined(job, timeout_s), open_mesh(device, config.parallel, timeout_s) as mesh:
        model = build_model(
            config.model,
            config.parallel,
            mesh,
            config.precision,
            config.run.seed,
            variable_lengths=config.data.has_variable_lengths,
        )
        model = build_data_parallel(model, config.parallel, mesh)
        optimizer = build_optimizer(
            config.optim, config.parallel, model, mesh, config.precision, config.train.steps
        )
        batches = build_train_batches(
            prepared, config.data, config.train, config.run.seed, mesh.dp_rank, mesh.dp_size
        )
        evaluation = build_evaluation(config, prepared, mesh)
        state = TrainState(tokenizer_sha256=tokenizer.sha256)
        stop, metrics = StopSignal(mesh), Metrics(run, config, mesh)
        checkpoints = CheckpointManager(
            config.checkpoint, run, mesh, model, optimizer, state, config_to_dict(config)
        )
        checkpoints.load_newest_good()  # nothing to do on a fresh run
        if state.step == 0:
            state.heldout_perplexity_before = evaluation.heldout_perplexity(model)
        if mesh.is_main:
            run.append_event(
                "started",
                step=state.step,
                num_processes=job.world_size,
                layout=mesh.describe(),
                heldout_perplexity_before=state.heldout_perplexity_before,
            )
        metrics.start_interval()
        while state.step < config.train.steps:
            train_step(config, mesh, model, optimizer, batches, state, metrics)
            with metrics.paused():
                if evaluation.is_due(state.step) and state.step < config.train.steps:
                    report_evaluation(run, mesh, state, evaluation.heldout_perplexity(model))
                if checkpoints.is_due(state.step):
                    checkpoints.save()
            if stop.agreed_by_all_ranks():
                break
        batches.close()
        metrics.close()
        checkpoints.finish()
        if state.step < config.train.steps:
            if mesh.is_main:
                run.append_event("preempted", step=state.step, reason=stop.reason)
            return "preempted"
        perplexity = evaluation.heldout_perplexity(model)
        if mesh.is_main:
            run.append_event(
                "finished",
                step=state.step,
                tokens=state.tokens,
                heldout_perplexity=perplexity,
                heldout_perplexity_before=state.heldout_perplexity_before,
                unigram_perplexity=None if perplexity is None else unigram_perplexity(prepared),
            )
        return "finished"


def train_step(config: RunConfig, mesh: Mesh, model, optimizer, batches, state: TrainState, metrics: Metrics) -> None:
    """One update: all micro-batches forward and backward, the gradients reduced, the weights changed, the counts kept."""
    micro_batches = batches.micro_batches(state.step)
    model.zero_grad_buffer()
    optimizer.zero_grad()
    total = forward_backward(
        model,
        micro_batches,
        mesh,
        config.data.sequence_length,
        before_micro_batch=partial(_seed_micro_batch, config, mesh, state.step) if _has_dropout(config) else None,
    )
    update = optimizer.step(state.step)
    total = total.over_data_parallel(mesh)
    (tokens,) = mesh.sum_over_data_parallel([sum(batch.num_real_tokens for batch in micro_batches)])
    state.advance(int(tokens), update.applied)
    mean_width = sum(batch.tokens_BS.shape[1] for batch in micro_batches) / len(micro_batches)
    metrics.record(state, total, int(tokens), mean_width, update, batches)
    if update.applied and not math.isfinite(total.mean):
        raise TrainingDiverged(
            f"the loss of step {state.step} is {total.mean} at learning rate {update.lr:.3g}; "
            "try a smaller optim.lr, more optim.warmup_steps, or optim.clip_grad"
        )


def with_tokenizer(config: RunConfig, tokenizer: Tokenizer) -> RunConfig:
    """The configuration with model.vocab_size and pad_id set; ConfigError where the tokenizer has more ids than that."""
    vocab_size = config.model.vocab_size or tokenizer.vocab_size
    if vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size ({vocab_size}) is below the tokenizer's {tokenizer.vocab_size}; "
            "leave it out, or take the tokenizer that the model was made for"
        )
    model = dataclasses.replace(config.model, vocab_size=vocab_size, pad_id=tokenizer.pad_id)
    return dataclasses.replace(config, model=model)


def build_evaluation(config: RunConfig, prepared: PreparedData, mesh: Mesh) -> Evaluation:
    """The held-out evaluation of a run; it does nothing where there is no held-out text."""
    valid = None
    if prepared.valid:
        valid = build_valid_batches(
            prepared, config.data, config.train, config.run.seed, mesh.dp_rank, mesh.dp_size
        )
    return Evaluation(valid, config.train.eval_interval, config.data.sequence_length, mesh)


def report_evaluation(run: RunDirectory, mesh: Mesh, state: TrainState, perplexity: float) -> None:
    """The event of an evaluation on the way."""
    if mesh.is_main:
        run.append_event(
            "evaluated", step=state.step, heldout_loss=math.log(perplexity), heldout_perplexity=perplexity
        )


def _has_dropout(config: RunConfig) -> bool:
    return config.model.dropout > 0 or config.model.attention_dropout > 0


def _seed_micro_batch(config: RunConfig, mesh: Mesh, step: int, number: int) -> None:
    # Numbered over the whole global batch, so that the data-parallel size does not matter.
    seed_dropout(config.run.seed, step, number * mesh.dp_size + mesh.dp_rank, mesh)
