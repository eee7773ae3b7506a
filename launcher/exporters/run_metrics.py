"""The metrics of a run as a whole, for its supervisor's exporter; computed at each scrape, they cost nothing between."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.exporters.run_figures import RunFigures
from launcher.heartbeats import RankPulse
from launcher.run_status import STATES
from launcher.stragglers import Stragglers
from robustbert.config import RunConfig
from robustbert.goodput import ACTIVITIES

UP_WITHIN_S = 10.0  # since its last sign of life a rank counts as up
# (name, help, key of a line of metrics.jsonl)
_FROM_LINE = (
    ("robustbert_step", "Completed updates.", "step"),
    ("robustbert_loss_nats", "Mean negative log-likelihood of a masked token.", "loss"),
    ("robustbert_perplexity", "Exponential of the loss.", "perplexity"),
    ("robustbert_learning_rate", "Learning rate of the last update.", "lr"),
    ("robustbert_gradient_norm", "Norm of the gradient before clipping.", "grad_norm"),
    ("robustbert_loss_scale", "Scale of the loss in fp16.", "loss_scale"),
    ("robustbert_tokens_per_second", "Real tokens a second, over all processes.", "tokens_per_s"),
    ("robustbert_step_seconds", "Mean time of a step of the last logged interval.", "step_time_s"),
    ("robustbert_data_wait_seconds", "Mean time that a step of the first rank waited for its data.", "data_wait_s"),
    ("robustbert_model_flops_utilization", "Share of the hardware's peak.", "mfu"),
    ("robustbert_next_sentence_loss_nats", "Mean loss of a pair (formats with pairs).", "next_sentence_loss"),
    ("robustbert_next_sentence_accuracy", "Share of the pairs told rightly.", "next_sentence_accuracy"),
    ("robustbert_report_timestamp_seconds", "When the newest logged step was reported.", "time"),
)
# The same of the event checkpoint_saved.
_FROM_CHECKPOINT = (
    ("robustbert_checkpoint_step", "Step of the newest checkpoint.", "step"),
    ("robustbert_checkpoint_timestamp_seconds", "When the newest checkpoint was committed.", "time"),
    ("robustbert_checkpoint_seconds", "From the copy of the state to the commit.", "seconds"),
    ("robustbert_checkpoint_stall_seconds", "How long training stood still for it.", "stalled_s"),
    ("robustbert_checkpoint_bytes", "Size of the newest checkpoint.", "bytes"),
)
# (name, help, event): how often it has happened since the run was submitted.
_EVENT_COUNTS = (
    ("robustbert_restarts", "Attempts after the first one.", "restarted"),
    ("robustbert_rollbacks", "Returns to a checkpoint because training went wrong.", "rolled_back"),
    ("robustbert_checkpoint_failures", "Writes of a checkpoint that failed.", "checkpoint_failed"),
)


@dataclass(frozen=True)
class JobView:
    """The job of this moment: who belongs to it, and what is heard of them."""

    num_processes: int
    num_nodes: int
    num_left_out: int
    pulses: dict[int, RankPulse] | None  # None: there is no job, the run waits or has ended


def collect(config: RunConfig, figures: RunFigures, job: JobView, stragglers: Stragglers, now: float) -> Iterator:
    """All metric families; a value that is not known (yet) has no sample."""
    yield from _of_the_run(config, figures, job, now)
    yield from _of_training(figures)
    yield from _of_time(figures, now)
    yield from _of_checkpoints(config, figures)
    if job.pulses is not None:
        yield from _of_ranks(job, stragglers, now)


def _of_the_run(config: RunConfig, figures: RunFigures, job: JobView, now: float) -> Iterator:
    layout = " x ".join(f"{axis} {size}" for axis, size in figures.layout.items() if not isinstance(size, bool))
    about = {"layout": layout, "precision": config.precision, "scheduler": config.cluster.scheduler}
    yield _labelled("robustbert_run_info", "What kind of run this is.", tuple(about), {tuple(about.values()): 1})
    states = {(state,): float(state == figures.state) for state in STATES}
    yield _labelled("robustbert_run_state", "1 for the state that the run is in.", ("state",), states)
    yield _gauge("robustbert_processes", "Processes that the job has when all are there.", job.num_processes)
    yield _gauge("robustbert_nodes", "Nodes in use.", job.num_nodes)
    yield _gauge("robustbert_nodes_left_out", "Nodes that the run does without, after their failures.", job.num_left_out)
    yield _gauge("robustbert_planned_steps", "Updates of the whole run.", config.train.steps)
    counts = {(name,): count for name, count in figures.events.items()}
    yield _labelled("robustbert_events", "Events since the run was submitted.", ("event",), counts, is_counter=True)
    for name, help, event in _EVENT_COUNTS:
        yield _counter(name, help, figures.events[event])


def _of_training(figures: RunFigures) -> Iterator:
    for name, help, key in _FROM_LINE:
        yield _gauge(name, help, figures.newest.get(key))
    tflops = figures.newest.get("tflops")
    flops = None if tflops is None else tflops * 1e12
    yield _gauge("robustbert_flops_per_second", "Model operations a second of one process' device.", flops)
    yield _gauge("robustbert_heldout_loss_nats", "Loss on held-out text at the last evaluation.", figures.heldout_loss)
    yield _counter("robustbert_tokens", "Real tokens trained on, those of steps computed again included.", figures.tokens.total)
    yield _counter("robustbert_skipped_steps", "Updates skipped for an overflow.", figures.skipped_steps.total)
    samples = {(corpus,): rising.total for corpus, rising in figures.corpus_samples.items()}
    yield _labelled("robustbert_corpus_samples", "Samples trained on.", ("corpus",), samples, is_counter=True)


def _of_time(figures: RunFigures, now: float) -> Iterator:
    seconds = figures.run_seconds(now)
    values = {(activity,): seconds[activity] for activity in ACTIVITIES}
    yield _labelled("robustbert_run_seconds", "Time since the run was submitted.", ("activity",), values, is_counter=True)
    share = "Share of the time since submission in which training got further."
    yield _gauge("robustbert_goodput_ratio", share, figures.goodput(now))


def _of_checkpoints(config: RunConfig, figures: RunFigures) -> Iterator:
    for name, help, key in _FROM_CHECKPOINT:
        yield _gauge(name, help, figures.checkpoint.get(key))
    yield _gauge("robustbert_checkpoint_interval_steps", "Steps from one checkpoint to the next.", config.checkpoint.interval)
    yield _gauge("robustbert_loss_scale_minimum", "The smallest scale of the loss in fp16.", config.optim.min_loss_scale)


def _of_ranks(job: JobView, stragglers: Stragglers, now: float) -> Iterator:
    since_s = time.monotonic()
    heard, up = {}, {}
    for rank in range(job.num_processes):
        pulse = job.pulses.get(rank)
        heard[str(rank),] = 0.0 if pulse is None else now - (since_s - pulse.heard_at)
        is_up = pulse is not None and pulse.is_connected and since_s - pulse.heard_at < UP_WITHIN_S
        up[str(rank),] = float(is_up)
    yield _labelled("robustbert_rank_heartbeat_timestamp_seconds", "Last sign of life of a rank; 0: never.", ("rank",), heard)
    yield _labelled("robustbert_rank_up", "Whether a rank gives signs of life.", ("rank",), up)
    slowest = stragglers.slowest
    yield _gauge("robustbert_slowest_rank", "The rank furthest above its pipeline stage's median.", slowest and slowest.rank)
    yield _gauge("robustbert_slowest_rank_ratio", "Its own time over that median.", slowest and slowest.ratio)
    held = {(str(pace.rank), pace.host): pace.ratio for pace in list(stragglers.held.values())}  # it changes in another thread
    slow = "Ranks that have been slow for some time: own time over the median of the stage."
    yield _labelled("robustbert_straggler", slow, ("rank", "host"), held)


def _gauge(name: str, help: str, value: float | None):
    return _labelled(name, help, (), {} if value is None else {(): value})


def _counter(name: str, help: str, value: float):
    return _labelled(name, help, (), {(): value}, is_counter=True)


def _labelled(name: str, help: str, labels: tuple[str, ...], values: dict[tuple, float], is_counter: bool = False):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family = (CounterMetricFamily if is_counter else GaugeMetricFamily)(name, help, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
