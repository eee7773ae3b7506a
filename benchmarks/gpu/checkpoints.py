"""A checkpoint written on the GPU is continued on the CPU and on the GPU, and one of the CPU on the GPU: equal losses."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.context import Context
from benchmarks.gpu.numerics import differences
from benchmarks.gpu.prepare import NUM_STEPS, make_run, optional
from benchmarks.gpu.train_job import TrainSpec, train_in_processes
from robustbert.config import ModelConfig

_TOLERANCE = 1e-5  # relative, of every loss after the checkpoint
_SAVED_AT = NUM_STEPS // 2


def run(context: Context) -> str:
    """Save at step 10 on either device, continue for 5 steps on either."""
    texts = []
    for origin, on_cpu in (("device", False), ("cpu", True))[: 1 if context.rehearse else 2]:
        saved = make_run(context, f"saved_on_{origin}")
        spec = TrainSpec(
            str(context.settings.work / "small.yaml"),
            optional(ModelConfig, "model.compile=false"),
            str(saved.path),
            _SAVED_AT,
            save=True,
        )
        train_in_processes(spec, context.left_s(), on_cpu=on_cpu)
        with ThreadPoolExecutor() as pool:
            on_device, on_cpu_again = pool.map(lambda where: _continue(context, spec, saved.path, where), ("device", "cpu"))
        largest = max(differences(on_device, on_cpu_again))
        name = f"written on {'cpu' if on_cpu else context.device}"
        context.check(f"{name}, from {origin}", largest <= _TOLERANCE, difference=largest, tolerance=_TOLERANCE)
        texts.append(f"{name} {largest:.1e}")
    return f"steps {_SAVED_AT + 1} to {_SAVED_AT + 5} on {context.device} beside cpu: {', '.join(texts)} (relative)"


def _continue(context: Context, spec: TrainSpec, saved: Path, where: str) -> list[float]:
    copy = saved.with_name(f"{saved.name}_on_{where}")
    shutil.copytree(saved, copy, symlinks=True)
    resumed = replace(spec, run=str(copy), steps=_SAVED_AT + 5, resume=True, save=False)
    lines = train_in_processes(resumed, context.left_s(), on_cpu=where == "cpu")
    if lines[_SAVED_AT]["step"] != _SAVED_AT + 1:
        raise RuntimeError(
            f"the run went on from step {lines[_SAVED_AT]['step'] - 1}, not from the checkpoint of step {_SAVED_AT}"
        )
    return [line["loss"] for line in lines[_SAVED_AT:]]
