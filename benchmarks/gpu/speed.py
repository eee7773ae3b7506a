"""The production training step on one card: tokens/s, model TFLOP/s, memory, waits and kernels, by micro-batch and switches."""

import gc
import itertools
import statistics
from dataclasses import dataclass

import torch

from benchmarks.gpu.clock import host_calls, profiled, time_blocks
from benchmarks.gpu.context import Context
from benchmarks.gpu.prepare import full_config, make_run, optional
from benchmarks.gpu.session import Session, forget_compiled, open_session
from robustbert.config import ModelConfig, TrainConfig
from robustbert.throughput import training_flops

_WARM_UP, _CALLS, _BLOCKS, _PROFILED = 5, 8, 3, 2  # steps
_COLUMNS = ["model", "rows", "prec.", "switches", "tokens/s", "TFLOP/s", "of product", "GiB", "waits", "launches"]
_number = itertools.count()


@dataclass(frozen=True)
class Case:
    """What is measured. switches: overrides of keys that not every version has."""

    preset: str
    rows: int
    precision: str = "bf16"
    switches: tuple[str, ...] = ()

    def describe(self) -> str:
        short = [switch.rpartition(".")[2].replace("true", "on").replace("false", "off") for switch in self.switches]
        return " ".join(short) or "default"


def cases(preset: str, sizes: tuple[int, ...]) -> list[Case]:
    """The size that matters most first, then the next, the switches against their defaults, fp16, and the other sizes.

    CUDA graphs are also measured at the smallest size, where the host's share is largest.
    """
    first, *others = sizes
    eager = tuple(optional(ModelConfig, "model.compile=false"))
    graphs = tuple(optional(TrainConfig, "train.cuda_graphs=true"))
    found = [Case(preset, rows) for rows in sizes[:2]]
    found += [Case(preset, first, switches=switch) for switch in (eager, graphs) if switch]
    found += [Case(preset, first, "fp16")]
    found += [Case(preset, sizes[-1], switches=graphs)] if graphs and others else []
    return found + [Case(preset, rows) for rows in others[1:]]


def base(context: Context) -> str:
    """roberta-base at 512 tokens."""
    return _measure_all(context, cases("roberta-base", (4, 2) if context.rehearse else (32, 64, 16, 8)))


def large(context: Context) -> str:
    """roberta-large at 512 tokens."""
    return _measure_all(context, cases("roberta-large", (4,) if context.rehearse else (16, 32, 64, 8)))


def _measure_all(context: Context, wanted: list[Case]) -> str:
    product = context.of_stage("rates").get("product_flops_per_s")
    measured, table, slowest_s = [], [], 0.0
    for case in wanted:
        if context.left_s() < 1.3 * slowest_s + 5:
            table.append([case.preset, case.rows, case.precision, case.describe(), "no time left", *[""] * 5])
            continue
        before = context.left_s()
        try:
            found = measure(context, case)
        except Exception as error:
            found = {"error": _short(error)}
        gc.collect()
        _free(context)
        slowest_s = max(slowest_s, before - context.left_s())
        measured.append(
            {"preset": case.preset, "rows": case.rows, "precision": case.precision, "switches": case.switches} | found
        )
        table.append(_row(case, found, product))
        title = "one card, 512 tokens, dropout 0.1, optimizer included; 'of product': of the 8192-cubed bf16 product's rate"
        context.record(measured=measured, tables=[{"title": title, "columns": _COLUMNS, "rows": table}])
    good = [found for found in measured if "error" not in found]
    if not good:
        raise RuntimeError(measured[0]["error"] if measured else "no case fitted into the time")
    context.check("default case", "error" not in measured[0], error=measured[0].get("error"))
    best = max(good, key=lambda found: found["tokens_per_s"])
    share = f", {best['flops_per_s'] / product:.0%} of the product's rate" if product else ""
    return (
        f"{best['preset']}: {best['tokens_per_s']:,.0f} tokens/s, {best['flops_per_s'] / 1e12:.0f} TFLOP/s{share} "
        f"(rows {best['rows']}, {best['precision']}, {' '.join(best['switches']) or 'default'}); {len(good)} of {len(measured)} cases measured"
    )


def measure(context: Context, case: Case) -> dict:
    """One case: medians of blocks of steps. torch.OutOfMemoryError where it does not fit."""
    overrides = [f"train.micro_batch_size={case.rows}", f"train.global_batch_size={case.rows}", *case.switches]
    if not context.rehearse:
        overrides.append(f"model.preset={case.preset}")
        torch.cuda.reset_peak_memory_stats()
    config = full_config(context, f"precision={case.precision}", *overrides)
    with open_session(config, make_run(context, f"case-{next(_number)}")) as session:
        return measure_session(context, session)


def measure_session(context: Context, session: Session) -> dict:
    """Figures of a session that nothing has trained yet: real tokens, and operations of real and masked tokens."""
    calls, blocks = (2, 2) if context.rehearse else (_CALLS, _BLOCKS)
    for _ in range(2 if context.rehearse else _WARM_UP):
        session.step()
    peaks = [_peak(context)]  # metrics may begin a new peak at a logged step: so the largest of several
    rates, flops = [], []
    for _ in range(blocks):
        before = session.state.tokens
        (seconds,) = time_blocks(session.step, context.device, calls, 1)
        tokens = (session.state.tokens - before) / calls
        masked = tokens * session.config.data.masking.probability
        rates.append(tokens / seconds)
        peaks.append(_peak(context))
        flops.append(training_flops(session.config.model, tokens, masked, session.config.data.sequence_length) / seconds)
    seen = host_calls(profiled(session.step, context.device, _PROFILED), _PROFILED)
    rows = session.config.train.micro_batch_size
    step_s = [rows * session.config.data.sequence_length / rate for rate in rates]
    return {
        "tokens_per_s": statistics.median(rates),
        "flops_per_s": statistics.median(flops),
        "peak_bytes": max(peaks),
        "padded_step_s": step_s,
    } | seen


def _peak(context: Context) -> int:
    """Most bytes allocated since the last beginning; 0 on the CPU."""
    return 0 if context.rehearse else torch.cuda.max_memory_allocated()


def _row(case: Case, found: dict, product: float | None) -> list:
    start = [case.preset, case.rows, case.precision, case.describe()]
    if "error" in found:
        return [*start, found["error"][:40], *[""] * 5]
    share = f"{found['flops_per_s'] / product:.0%}" if product else "-"
    peak = f"{found['peak_bytes'] / 2**30:.1f}" if found["peak_bytes"] else "-"
    rates = [f"{found['tokens_per_s']:,.0f}", f"{found['flops_per_s'] / 1e12:.1f}", share, peak]
    return [*start, *rates, f"{found['waits']:.1f}", f"{found['launches']:.0f}"]


def _short(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    print(f"{type(error).__name__}: {error}", flush=True)
    return " ".join(f"{type(error).__name__}: {error}".split())


def _free(context: Context) -> None:
    forget_compiled()
    if not context.rehearse:
        torch.cuda.empty_cache()
