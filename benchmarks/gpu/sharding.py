"""Tensor, pipeline and data parallelism of two processes beside one: on a card each, or where NCCL allows it on one card."""

import os
from dataclasses import replace

from benchmarks.gpu.context import Context
from benchmarks.gpu.faults import inject
from benchmarks.gpu.numerics import differences
from benchmarks.gpu.prepare import NUM_STEPS, make_run, optional
from benchmarks.gpu.train_job import TrainingFailed, TrainSpec, train_in_processes
from robustbert.config import ModelConfig
from tests.faults.lab import FaultLab

_TOLERANCE = 1e-5  # relative, of every loss
LAYOUTS = {
    "TP2": ["parallel.tensor=2"],
    "PP2": ["parallel.pipeline=2"],
    "DP2": [],
}
# NCCL 2.30 and later lets several ranks share a card if it is told to; NVLS and many channels do not.
SHARED_CARD = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "1"}
_GLOO = ["parallel.distributed_optimizer=false"]  # gloo has only all_reduce and broadcast for CUDA tensors


def run(context: Context) -> str:
    """Losses of each layout; a layout that NCCL refuses on one card is tried with gloo over CUDA tensors."""
    eager = optional(ModelConfig, "model.compile=false")  # nothing to do with the layout, and it takes time
    spec = TrainSpec(str(context.settings.work / "small.yaml"), eager, str(make_run(context, "one").path), NUM_STEPS)
    reference = [line["loss"] for line in train_in_processes(spec, context.left_s())]
    shares_card = context.settings.num_gpus == 1
    texts, nccl_works = [], False
    for name, overrides in LAYOUTS.items():
        wanted = replace(spec, overrides=[*spec.overrides, *overrides, "cluster.processes_per_node=2"])
        try:
            found = _train(
                context, replace(wanted, run=str(make_run(context, name).path), card=0 if shares_card else None), shares_card
            )
            nccl_works = True
            texts.append(f"{name} {_judge(context, name, found, reference):.1e}")
        except TrainingFailed as error:
            if shares_card:
                texts.append(_with_gloo(context, wanted, name, reference, error))
            else:  # on a card each there is no excuse
                context.check(name, False, error=str(error))
                texts.append(f"{name}: {_cut(error)}")
    if shares_card and nccl_works and context.left_s() > 45:
        texts.append("two ranks on one card, " + _break_one(context))
    how = "one card, two ranks" if shares_card else "two CPU processes" if context.rehearse else "a card each"
    return f"{how}: {'; '.join(texts)} (relative to one process)"


def _train(context: Context, spec: TrainSpec, shares_card: bool) -> list[float]:
    environment = {}
    if shares_card:
        environment |= SHARED_CARD
        if context.settings.nccl_library:
            environment["LD_PRELOAD"] = str(context.settings.nccl_library)
    lines = train_in_processes(spec, min(40.0, context.left_s()), num_ranks=2, environment=environment)
    return [line["loss"] for line in lines]


def _judge(context: Context, name: str, losses: list[float], reference: list[float]) -> float:
    largest = max(differences(losses, reference))
    context.check(name, largest <= _TOLERANCE, difference=largest, tolerance=_TOLERANCE)
    return largest


def _with_gloo(context: Context, wanted: TrainSpec, name: str, reference: list[float], refusal: TrainingFailed) -> str:
    run = make_run(context, f"{name}_gloo")
    spec = replace(wanted, run=str(run.path), card=0, backend="gloo", overrides=[*wanted.overrides, *_GLOO])
    context.record(**{f"{name}: NCCL": str(refusal)})
    try:
        found = _judge(context, f"{name} over gloo", _train(context, spec, shares_card=False), reference)
        return f"{name} NCCL: {_cut(refusal)}; gloo {found:.1e}"
    except TrainingFailed as error:
        context.record(**{f"{name}: gloo": str(error)})
        return f"{name} NCCL: {_cut(refusal)}; gloo: {_cut(error)}"


def _break_one(context: Context) -> str:
    """An exception and a loop in one of two ranks under NCCL, through the launcher."""
    os.environ.update(SHARED_CARD)  # of this stage alone; the launcher hands it on to its processes
    lab = FaultLab(context.folder / "faults")
    try:
        return inject(context, lab, 2, ("raise", "spin"), prefix="shared-")
    finally:
        lab.close()


def _cut(error: Exception) -> str:
    return str(error)[:110]
