"""What needs a person's attention in a run, in plain words, each with what to type; the worst first."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from launcher.report.record import RunRecord
from launcher.run_status import run_argument
from launcher.stragglers import held_stragglers
from robustbert.durations import duration

BAD, WARNING, NOTE = LEVELS = ("bad", "warning", "note")
_RECENT = 20  # logged steps that tell how the run is now
# The same shares as in monitoring/rules/alerts.yml, where each says why.
_SLOW_BELOW = 0.8
_DATA_WAIT_ABOVE = 0.1
_GOODPUT_BELOW = 0.8
_SKIPPED_ABOVE = 0.05  # dynamic loss scaling skips about one step in loss_scale_window (1000)
_SILENT_STEPS = 10  # logged intervals without a line
_SILENT_AT_LEAST_S = 60.0


@dataclass(frozen=True)
class Finding:
    """level: one of LEVELS; way: a command or a key of the configuration, empty where there is nothing to do."""

    level: str
    text: str
    way: str = ""


def find_all(record: RunRecord) -> list[Finding]:
    """Everything that this run's record shows to be wrong or worth knowing."""
    found = [finding for look in (_state, _loss, _optimizer, _checkpoints, _failures, _speed, _learning) for finding in look(record)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _state(record: RunRecord) -> Iterator[Finding]:
    name, status = run_argument(record.run), record.status
    if record.config_error:
        yield Finding(WARNING, f"its configuration cannot be read: {record.config_error}")
    if status.state == "failed":
        yield Finding(BAD, f"failed: {status.detail}", f"launcher logs {name}; then launcher resume {name}")
    elif status.state == "interrupted":
        yield Finding(BAD, "its supervisor is gone without a last word (killed, or its node lost)", f"launcher resume {name}")
    elif status.state == "stopped":
        yield Finding(NOTE, f"stopped: {status.detail}", f"launcher resume {name}")
    elif status.state == "queued":
        yield Finding(NOTE, f"in the queue: {status.detail}")
    elif status.state == "running" and record.metrics:
        age_s = record.read_at - record.metrics[-1]["time"]
        usual_s = np.median(np.diff(record.column("time")[-_RECENT:])) if len(record.metrics) > 2 else _SILENT_AT_LEAST_S
        if age_s > max(_SILENT_AT_LEAST_S, _SILENT_STEPS * usual_s):
            text = f"no logged step for {duration(age_s)}, they came every {duration(usual_s)}"
            yield Finding(BAD, text, f"launcher logs {name} --follow")
    if not record.metrics and status.state != "queued":
        yield Finding(NOTE, "no step has been logged yet", f"launcher logs {name}")


def _loss(record: RunRecord) -> Iterator[Finding]:
    loss = record.column("loss")
    broken = np.flatnonzero(~np.isfinite(loss))
    if len(broken):
        step = record.metrics[broken[-1]]["step"]
        is_now = broken[-1] == len(loss) - 1
        text = f"the loss is not finite at step {step}" if is_now else f"the loss was not finite, last at step {step}"
        way = "lower optim.lr, or precision: bf16" if is_now else ""
        yield Finding(BAD if is_now else WARNING, f"{text} ({_count(broken, 'logged step')})", way)


def _optimizer(record: RunRecord) -> Iterator[Finding]:
    config, scale = record.config, record.column("loss_scale")
    if config and config.precision == "fp16" and len(scale) and scale[-1] <= config.optim.min_loss_scale:
        text = f"the loss scale is at its minimum ({scale[-1]:g}): gradients overflow whatever it is"
        yield Finding(BAD, text, "lower optim.lr, or precision: bf16")
    skipped, steps = record.column("skipped_steps"), record.column("step")
    if len(steps) and steps[-1] > 0 and skipped[-1] / steps[-1] > _SKIPPED_ABOVE:
        yield Finding(WARNING, f"{skipped[-1]:.0f} of {steps[-1]:.0f} updates were skipped for an overflow", "lower optim.lr")


def _checkpoints(record: RunRecord) -> Iterator[Finding]:
    saves = [checkpoint for checkpoint in record.checkpoints if checkpoint.outcome in ("kept", "removed")]
    failed = [checkpoint for checkpoint in record.checkpoints if checkpoint.outcome == "failed"]
    if failed:
        later = any(save.time >= failed[-1].time for save in saves)
        what = f"{_count(failed, 'write')} of a checkpoint failed, last at step {failed[-1].step}: {failed[-1].reason}"
        yield Finding(WARNING if later else BAD, what, "" if later else "look at the space and the rights of the run's disk")
    rejected = [checkpoint for checkpoint in record.checkpoints if checkpoint.outcome == "rejected"]
    if rejected:
        yield Finding(WARNING, f"{_count(rejected, 'checkpoint')} found broken and set aside, last: {rejected[-1].reason}")
    if record.config and record.status.is_alive and record.metrics:
        since = record.status.step - (saves[-1].step if saves else 0)
        if since > 2 * record.config.checkpoint.interval:
            text = f"{since} steps since the last checkpoint, checkpoint.interval is {record.config.checkpoint.interval}"
            yield Finding(BAD, text, f"launcher logs {run_argument(record.run)} --rank 0")


def _failures(record: RunRecord) -> Iterator[Finding]:
    for names, noun, rest in (
        (("rank_lost", "hang"), "failure", " of the job"),
        (("rolled_back",), "rollback", " to an earlier checkpoint"),
        (("replicas_differ",), "difference", " between the replicas' weights"),
        (("node_left_out",), "node", " left out"),
        (("summary_failed",), "failure", " of the summary"),
    ):
        if events := record.events_named(*names):
            yield Finding(WARNING, f"{_count(events, noun)}{rest}, last: {events[-1].get('reason') or _fields(events[-1])}")
    for event in held_stragglers(record.events) if record.status.is_alive else ():
        ratio, part = event.get("ratio", math.nan), event.get("part", "its steps")
        text = f"rank {event.get('rank')} on {event.get('host')} takes {ratio:.2f} times as long as its stage's median ({part})"
        yield Finding(WARNING, text, "launcher doctor CONFIG; cluster.exclude=[...] leaves its node out")


def _speed(record: RunRecord) -> Iterator[Finding]:
    rates = record.column("tokens_per_s")
    rates = rates[np.isfinite(rates)]
    if len(rates) > 2 * _RECENT:
        now, usual = np.median(rates[-_RECENT // 2 :]), np.median(rates)
        if now < _SLOW_BELOW * usual:
            text = f"{now:,.0f} tokens/s at the end, its median is {usual:,.0f}"
            yield Finding(WARNING, text, f"launcher top {run_argument(record.run)}")
    wait, whole = record.column("data_wait_s")[-_RECENT:], record.column("step_time_s")[-_RECENT:]
    shares = (wait / np.maximum(whole, 1e-9))[np.isfinite(wait) & np.isfinite(whole)]
    if len(shares) and np.median(shares) > _DATA_WAIT_ABOVE:
        yield Finding(WARNING, f"{np.median(shares):.0%} of a step is waiting for data", "more data.num_workers")
    account = record.time_account
    if account.goodput is not None and account.elapsed_s > 600 and account.goodput < _GOODPUT_BELOW:
        other = max((name for name in account.seconds if name != "training"), key=account.seconds.get)
        text = f"goodput {account.goodput:.0%}: most of the rest was {other} ({duration(account.seconds[other])})"
        yield Finding(WARNING, text)


def _learning(record: RunRecord) -> Iterator[Finding]:
    perplexities = [(step, value) for _, step, value in record.evaluations if math.isfinite(value)]
    if len(perplexities) > 2:
        best_step, best = min(perplexities, key=lambda pair: pair[1])
        if perplexities[-1][1] > 1.02 * best:  # evaluations of 10^5 masked tokens differ by less than that
            text = f"held-out perplexity {perplexities[-1][1]:,.2f}, it was {best:,.2f} at step {best_step}: it overfits or diverges"
            yield Finding(WARNING, text)
    finished = record.events_named("finished")
    if finished:
        reached, unigram = (finished[-1].get(key) for key in ("heldout_perplexity", "unigram_perplexity"))
        if reached and unigram and not reached < unigram:
            text = f"held-out perplexity {reached:,.1f} is not below {unigram:,.1f}, that of token frequency alone: no context was learned"
            yield Finding(BAD, text)


def _count(things, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _fields(event: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "event"))
