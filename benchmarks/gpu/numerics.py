"""Losses on the GPU beside the CPU's, and 16-bit precisions beside fp32."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import torch

from benchmarks.gpu.context import Context
from benchmarks.gpu.prepare import NUM_STEPS, make_run, small_config
from benchmarks.gpu.session import forget_compiled, open_session
from benchmarks.gpu.train_job import TrainSpec, train_in_processes
from robustbert.config import RunConfig

FIRST_STEP_TOLERANCE, ALL_STEPS_TOLERANCE = 1e-5, 1e-4  # relative
PRECISION_TOLERANCE = {"bf16": 2e-2, "fp16": 5e-3}  # relative, of every step's loss: 8 and 11 bits of significand
_OVERFLOWING_SCALE = 2.0**60


def differences(losses: list[float], reference: list[float]) -> list[float]:
    """Relative differences, step by step. ValueError where the steps are not as many."""
    if len(losses) != len(reference) or not losses:
        raise ValueError(f"{len(losses)} losses beside {len(reference)}")
    return [abs(mine - other) / abs(other) for mine, other in zip(losses, reference)]


def compare_with_cpu(context: Context) -> str:
    """The same weights and batches for 20 steps, fp32 without TF32, no dropout."""
    spec = TrainSpec(str(context.settings.work / "small.yaml"), [], str(make_run(context, "cpu").path), NUM_STEPS)
    with_device = dataclasses.replace(spec, run=str(make_run(context, "device").path))
    with ThreadPoolExecutor() as pool:
        on_cpu = pool.submit(train_in_processes, spec, context.left_s(), on_cpu=True)
        on_device = pool.submit(train_in_processes, with_device, context.left_s())
        reference, losses = ([line["loss"] for line in found.result()] for found in (on_cpu, on_device))
    found = differences(losses, reference)
    context.check("first step", found[0] <= FIRST_STEP_TOLERANCE, difference=found[0], tolerance=FIRST_STEP_TOLERANCE)
    context.check("all steps", max(found) <= ALL_STEPS_TOLERANCE, difference=max(found), tolerance=ALL_STEPS_TOLERANCE)
    context.record(losses=losses, cpu_losses=reference)
    return f"{len(found)} steps beside the CPU: {found[0]:.1e} at first, at most {max(found):.1e} (relative)"


def compare_precisions(context: Context) -> str:
    """bf16 and fp16 beside fp32; an fp16 overflow is skipped and halves the loss scale."""
    losses = {precision: _train(context, precision) for precision in ("fp32", *PRECISION_TOLERANCE)}
    texts = []
    for precision, tolerance in PRECISION_TOLERANCE.items():
        largest = max(differences(losses[precision], losses["fp32"]))
        context.check(precision, largest <= tolerance, difference=largest, tolerance=tolerance)
        texts.append(f"{precision} {largest:.1e} ({tolerance:g} allowed)")
    scales = _overflow(context)
    return f"largest relative difference to fp32: {', '.join(texts)}; overflow: skipped, scale {scales[0]:g} -> {scales[1]:g}"


def _train(context: Context, precision: str) -> list[float]:
    forget_compiled()
    config = dataclasses.replace(small_config(context), precision=precision)
    with open_session(config, make_run(context, precision)) as session:
        for _ in range(NUM_STEPS):
            session.step()
        return session.losses()


def _overflow(context: Context) -> tuple[float, float]:
    """A loss scale that fp16 cannot hold: (scale before, scale after) the step that overflows."""
    config: RunConfig = small_config(context, f"optim.initial_loss_scale={_OVERFLOWING_SCALE}")
    with open_session(dataclasses.replace(config, precision="fp16"), make_run(context, "overflow")) as session:
        parts = session.optimizer.owned_parts()
        before = [part.weight.detach().clone() for part in parts]
        weights = [parameter.detach().clone() for parameter in session.model.parameters()]
        scale = _scale(session)
        session.step()
        after = _scale(session)
        unchanged = all(torch.equal(part.weight, old) for part, old in zip(session.optimizer.owned_parts(), before))
        unchanged &= all(torch.equal(parameter, old) for parameter, old in zip(session.model.parameters(), weights))
        context.check("overflow skipped", session.state.skipped_steps == 1, skipped=session.state.skipped_steps)
        context.check("weights unchanged", unchanged)
        context.check("loss scale halved", after == scale / 2, before=scale, after=after)
    return scale, after


def _scale(session) -> float:
    return float(session.optimizer.megatron.get_loss_scale())
