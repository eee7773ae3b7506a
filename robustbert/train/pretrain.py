"""pretrain: one pretraining run, top to bottom (RoBERTa, sections 2 to 5)."""

import dataclasses
import math
from functools import partial

from robustbert.checkpoint.manager import CheckpointManager
from robustbert.config import ConfigError, RunConfig
from robustbert.data.batches import build_train_batches, build_valid_batches
from robustbert.data.prepare import PreparedData, prepared_data, unigram_perplexity
from robustbert.data.tokenizer import Tokenizer, load_tokenizer
from robustbert.device import Device, repeatable
from robustbert.job import Job
from robustbert.model.build import build_model
from robustbert.optim.build import build_optimizer
from robustbert.parallel.data_parallel import build_data_parallel
from robustbert.parallel.mesh import Mesh, open_mesh
from robustbert.parallel.micro_batch_graph import MicroBatchGraph
from robustbert.parallel.pipeline import StepSums, build_graph, run_micro_batches
from robustbert.parallel.random import seed_dropout
from robustbert.progress import COMPILING, Progress
from robustbert.resume.continuation import Continuation
from robustbert.run_directory import RunDirectory
from robustbert.train.evaluate import Evaluation
from robustbert.train.metrics import Metrics
from robustbert.train.replicas import check_replicas
from robustbert.train.start import Start
from robustbert.train.state import TrainState
from robustbert.train.stop_signal import StopSignal
from robustbert.train.trouble import Rollback, find_trouble

# Added to hang_timeout_s for the collectives' own limit, so that whoever watches the job comes first and names the culprit.
_COLLECTIVES_WAIT_LONGER_S = 120


def pretrain(config: RunConfig, job: Job, run: RunDirectory) -> str:
    """Train until train.steps or until told to stop; every process of the job runs this function.

    Goes on from the run's newest good checkpoint. Returns "finished" or "preempted", with a checkpoint of the last
    step on disk either way. ValueError (ConfigError, DataError, CheckpointError, TrainingDiverged) for what a restart
    cannot cure.
    """
    progress = job.progress
    progress.mark("opening the data")
    prepared = prepared_data(config.data, run.data)
    tokenizer = load_tokenizer(prepared.tokenizer_dir)
    config = with_tokenizer(config, tokenizer)
    device = Device.detect(job, config.precision)
    limits = config.fault_tolerance
    timeout_s = max(limits.hang_timeout_s, limits.startup_timeout_s) + _COLLECTIVES_WAIT_LONGER_S
    progress.mark("meeting the other processes")
    with (
        repeatable(config.train.deterministic),
        device.joined(job, timeout_s) as store,
        open_mesh(device, config.parallel, timeout_s) as mesh,
        Metrics(run, config, mesh, progress).closing() as metrics,
    ):
        progress.mark("building the model")
        model = build_model(
            config.model,
            config.parallel,
            mesh,
            config.precision,
            variable_lengths=config.data.has_variable_lengths,
        )
        replays = config.train.cuda_graphs and device.is_cuda
        model = build_data_parallel(model, config.parallel, mesh, is_recorded=replays)
        optimizer = build_optimizer(
            config.optim, config.parallel, model, mesh, config.precision, config.train.steps
        )
        batches = build_train_batches(
            prepared, config.data, config.train, config.run.seed, mesh.dp_rank, mesh.dp_size
        )
        evaluation = build_evaluation(config, prepared, mesh, progress)
        contents = mesh.broadcast_from_main(prepared.contents() if mesh.is_main else None)
        state = TrainState(tokenizer_sha256=tokenizer.sha256, data=contents, samples_per_step=batches.samples_per_step)
        graph = build_graph(model, mesh) if replays else None
        stop = StopSignal()
        start = Start(config, run, mesh, model, optimizer, tokenizer.sha256)
        rollback = Rollback(config, run, mesh, start, state)
        continuation = Continuation(config, contents, tokenizer.sha256)
        checkpoints = CheckpointManager(config, run, mesh, store, model, optimizer, state, continuation.check)
        progress.mark("loading the checkpoint")
        if not checkpoints.load_newest_good():
            start.take()
        batches.begin_at(state.first_data_step, state.first_sample)
        if continuation.measures:
            state.heldout_perplexity_before = None  # of another measure
        if state.step == 0:
            progress.mark("evaluating")
            state.heldout_perplexity_before = evaluation.heldout_perplexity(model)
            metrics.record_evaluation(0, state.heldout_perplexity_before)
        if mesh.is_main:
            continuation.record(run)
            run.append_event(
                "started",
                step=state.step,
                num_processes=job.world_size,
                layout=mesh.describe(),
                heldout_perplexity_before=state.heldout_perplexity_before,
            )
        metrics.start_interval()
        while state.step < config.train.steps:
            state.data_step = rollback.skipped.next_step(state.data_step)
            trouble = train_step(config, mesh, model, optimizer, batches, state, metrics, stop, progress, graph)
            if trouble:
                progress.mark("rolling back")
                rollback.roll_back(trouble, checkpoints)
                batches.begin_at(state.first_data_step, state.first_sample)
                continue
            if evaluation.is_due(state.step) and state.step < config.train.steps:
                progress.mark("evaluating")
                report_evaluation(run, mesh, state, evaluation.heldout_perplexity(model), metrics)
            if is_replica_check_due(config, state.step):
                progress.mark("comparing the replicas")
                check_replicas(model, mesh, run, state.step)
            if checkpoints.is_due(state.step):
                progress.mark("saving")
                checkpoints.save()
            if stop.is_agreed:
                break
        progress.mark("ending")
        model.complete_weights()
        batches.close()
        checkpoints.finish()
        if state.step < config.train.steps:
            if mesh.is_main:
                run.append_event("preempted", step=state.step, reason=stop.reason)
            return "preempted"
        perplexity = evaluation.heldout_perplexity(model)
        metrics.record_evaluation(state.step, perplexity)
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


def train_step(
    config: RunConfig,
    mesh: Mesh,
    model,
    optimizer,
    batches,
    state: TrainState,
    metrics: Metrics,
    stop: StopSignal,
    progress: Progress,
    graph: MicroBatchGraph | None = None,
) -> str | None:
    """One update: all micro-batches forward and backward, the gradients reduced, the weights changed, the counts kept.

    Returns what is wrong with it, the same on every process; None where nothing is.
    """
    compiles = progress.step is None and model.module.fusion.is_compiled
    progress.mark("waiting for data", state.step)
    micro_batches = batches.micro_batches(state.data_step)
    phase = COMPILING if compiles else "forward and backward"
    progress.mark(phase)
    model.zero_grad_buffer()
    optimizer.zero_grad()
    losses = run_micro_batches(
        model,
        micro_batches,
        mesh,
        before_micro_batch=partial(_begin_micro_batch, config, mesh, progress, phase, state.step),
        graph=graph,
    )
    sums = StepSums(losses, micro_batches, mesh, flag=stop.is_requested)
    progress.mark("updating the weights")
    update = optimizer.step(state.step)
    progress.mark("counting")
    total, tokens, is_stop_requested = sums.read()
    stop.agree(is_stop_requested)
    state.advance(tokens, update.applied)
    mean_width = sum(batch.tokens_BS.shape[1] for batch in micro_batches) / len(micro_batches)
    metrics.record(state, total, tokens, mean_width, update, batches)
    return find_trouble(config, state, total.mean, update)


def is_replica_check_due(config: RunConfig, step: int) -> bool:
    """Every replica_check_interval steps, and before every checkpoint: then none holds what a later check would reject."""
    interval = config.fault_tolerance.replica_check_interval
    return interval is not None and (step % interval == 0 or step % config.checkpoint.interval == 0)


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


def build_evaluation(config: RunConfig, prepared: PreparedData, mesh: Mesh, progress: Progress) -> Evaluation:
    """The held-out evaluation of a run; it does nothing where there is no held-out text."""
    valid = None
    if prepared.valid:
        valid = build_valid_batches(
            prepared, config.data, config.train, config.run.seed, mesh.dp_rank, mesh.dp_size
        )
    return Evaluation(valid, config.train.eval_interval, mesh, progress)


def report_evaluation(run: RunDirectory, mesh: Mesh, state: TrainState, perplexity: float, metrics: Metrics) -> None:
    """The event of an evaluation on the way."""
    metrics.record_evaluation(state.step, perplexity)
    if mesh.is_main:
        run.append_event(
            "evaluated", step=state.step, heldout_loss=math.log(perplexity), heldout_perplexity=perplexity
        )


def _begin_micro_batch(config: RunConfig, mesh: Mesh, progress: Progress, phase: str, step: int, number: int) -> None:
    progress.mark(phase)
    if config.model.dropout > 0 or config.model.attention_dropout > 0:
        # Numbered over the whole global batch, so that the data-parallel size does not matter.
        seed_dropout(config.run.seed, step, number * mesh.dp_size + mesh.dp_rank, mesh)
