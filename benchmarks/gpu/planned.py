"""What `launcher plan` says beside what the card does: memory from torch's allocator, operations from torch's counter."""

import contextlib
import dataclasses
import json
import subprocess
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.context import ROOT, Context
from benchmarks.gpu.prepare import full_config, make_run, optional
from benchmarks.gpu.session import FixedBatches, open_session
from robustbert.config import ModelConfig, dump_config
from robustbert.hardware import load_profile, profile_names
from robustbert.model.attention import SDPA
from robustbert.plan.simulation import made_up_batch
from robustbert.throughput import training_flops

_MEMORY_TOLERANCE, _FLOPS_TOLERANCE = 0.10, 0.01
# Preset, rows of a micro-batch; dropout as in training, so that what it keeps is counted.
_CASES = (("roberta-base", 16), ("roberta-large", 8))


def run(context: Context) -> str:
    """Each case planned by the command, then one real step of the same shapes, every row full."""
    hardware = profile_of(context.settings.machine)
    texts, rows = [], []
    for preset, num_rows in (("roberta-base", 4),) if context.rehearse else _CASES:
        config = full_config(
            context, f"train.micro_batch_size={num_rows}", f"train.global_batch_size={num_rows}", *_preset(context, preset)
        )
        run_directory = make_run(context, preset)
        planned = _plan(context, config, hardware)
        allocated = _allocated(context, config, run_directory)
        flops, expected_flops = _operations(context, config, make_run(context, f"{preset}-operations"))
        predicted = planned["positions"][0]["total_bytes"]
        context.check(
            f"{preset}: operations", abs(flops / expected_flops - 1) <= _FLOPS_TOLERANCE, counted=flops, expected=expected_flops
        )
        texts.append(f"{preset} operations {flops / expected_flops:.4f} of torch's count")
        if allocated:
            context.check(
                f"{preset}: memory", abs(predicted / allocated - 1) <= _MEMORY_TOLERANCE, predicted=predicted, allocated=allocated
            )
            texts.append(
                f"memory {predicted / 2**30:.2f} GiB planned, {allocated / 2**30:.2f} allocated ({predicted / allocated:.3f})"
            )
        projected = planned["projected"]["tokens_per_s"]
        rows.append(
            [preset, num_rows, f"{predicted / 2**30:.2f}", f"{allocated / 2**30:.2f}" if allocated else "-", f"{projected:,.0f}"]
        )
    context.record(
        hardware=hardware,
        tables=[
            {
                "title": f"launcher plan --hardware {hardware}",
                "columns": ["model", "rows", "GiB planned", "GiB allocated", "tokens/s projected"],
                "rows": rows,
            }
        ],
    )
    return "; ".join(texts)


def profile_of(machine: dict) -> str:
    """The hardware profile of the card at hand; the H100's where there is none of it."""
    name = machine["cards"][0]["name"] if machine.get("cards") else None
    if name is None:
        return "cpu_2_cores"
    return next((profile for profile in profile_names() if (device := load_profile(profile).device) and device in name), "h100")


def _preset(context: Context, preset: str) -> list[str]:
    # A vocabulary without padding: at the rehearsal's sizes padded rows would be more than 1% of the operations.
    return ["model.vocab_size=384"] if context.rehearse else [f"model.preset={preset}"]


def _plan(context: Context, config, hardware: str) -> dict:
    file = context.folder / "planned.yaml"
    file.write_text(dump_config(config))
    command = [sys.executable, "-m", "launcher", "plan", str(file), "--hardware", hardware, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=context.left_s())
    if done.returncode not in (0, 1):
        raise RuntimeError(f"launcher plan: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    return json.loads(done.stdout)


def _allocated(context: Context, config, run_directory) -> int | None:
    """The most bytes that torch's allocator gave out in real steps; None on the CPU."""
    if not context.rehearse:
        torch.cuda.reset_peak_memory_stats()
    with open_session(config, run_directory) as session:
        session.batches = FixedBatches([made_up_batch(session.config)])
        for _ in range(2):  # the first makes the optimizer's moments
            session.step()
    return None if context.rehearse else torch.cuda.max_memory_allocated()


def _operations(context: Context, config, run_directory) -> tuple[float, float]:
    """(operations that torch counts in a step, those of the project's formula). Not compiled: the counter sees operators."""
    overrides = optional(ModelConfig, "model.compile=false")
    if overrides:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, compile=False))
    # The operators of the CPU's attention are not known to the counter; as plain products they are.
    attention = sdpa_kernel(SDPBackend.MATH) if context.rehearse else contextlib.nullcontext()
    with open_session(config, run_directory) as session:
        batch = made_up_batch(session.config)
        session.batches = FixedBatches([batch])
        with FlopCounterMode(display=False) as counter, attention:
            session.step()
        length = config.data.sequence_length
        shape, num_tokens = session.config.model, batch.tokens_BS.numel()
        expected = training_flops(shape, num_tokens, len(batch.targets_M), length)
        if session.model.module.attention_kernel != SDPA:  # the backward pass of the others computes the scores again
            expected += 2.0 * num_tokens * length * shape.hidden_size * shape.num_layers
        return float(counter.get_total_flops()), expected
