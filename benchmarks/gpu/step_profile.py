"""Where a step's time goes on the card: the longest kernels, the share in which it is idle, the waits of the host."""

import gzip
import shutil
from pathlib import Path

from benchmarks.gpu.clock import device_events, host_calls, idle_share, profiled, total_by_name
from benchmarks.gpu.context import Context
from benchmarks.gpu.prepare import full_config, make_run
from benchmarks.gpu.session import open_session

_STEPS, _SHOWN = 5, 10
_NAME_WIDTH = 70
LARGEST_TRACE = 15 * 2**20


def run(context: Context) -> str:
    """Five steps of roberta-base, the default case of the speed stage."""
    with open_session(full_config(context), make_run(context, "run")) as session:
        for _ in range(5):
            session.step()
        profiler = profiled(session.step, context.device, _STEPS)
    events = device_events(profiler, context.device)
    calls, idle = host_calls(profiler, _STEPS), idle_share(events)
    totals = total_by_name(events)
    whole = sum(total for _, total, _ in totals)
    rows = [
        [name[:_NAME_WIDTH], f"{total / _STEPS / 1e6:.2f}", f"{total / whole:.1%}", f"{count / _STEPS:.0f}"]
        for name, total, count in totals[:_SHOWN]
    ]
    title = (
        f"{_STEPS} steps: {idle:.1%} idle, {calls['waits']:.1f} waits, {calls['launches']:.0f} launches a step; longest kernels"
    )
    context.record(
        idle_share=idle,
        **calls,
        kernels=[{"name": name, "ns_a_step": total / _STEPS, "a_step": count / _STEPS} for name, total, count in totals[:100]],
        tables=[{"title": title, "columns": ["kernel", "ms a step", "share", "a step"], "rows": rows}],
        trace=_keep_trace(context, profiler),
    )
    longest = rows[0][0] if rows else "none"
    return f"{idle:.1%} idle; {calls['waits']:.1f} waits, {calls['copies']:.1f} copies, {calls['launches']:.0f} launches a step; longest kernel {longest}"


def _keep_trace(context: Context, profiler) -> str | None:
    """A Chrome trace, compressed; None where it is too large to be carried."""
    raw, packed = context.folder / "trace.json", context.settings.results / "trace.json.gz"
    profiler.export_chrome_trace(str(raw))
    with open(raw, "rb") as source, gzip.open(packed, "wb") as target:
        shutil.copyfileobj(source, target)
    raw.unlink()
    if packed.stat().st_size > LARGEST_TRACE:
        packed.unlink()
        return None
    return Path(packed).name
