"""Kernels beside plain ones: attention by cumulative lengths, a compiled model, Apex where it is installed."""

import torch

from benchmarks.gpu.attention_reference import KERNELS, TOLERANCE, compare, segment_attention
from benchmarks.gpu.context import Context
from benchmarks.gpu.numerics import differences
from benchmarks.gpu.prepare import make_run, optional, small_config
from benchmarks.gpu.session import forget_compiled, open_session
from robustbert.config import ModelConfig
from robustbert.device import Device
from robustbert.diagnosis.measures import judge_optimizer
from robustbert.optim.apex import pairs_to_compare
from robustbert.parallel.apex_layer_norm import layer_norm_class

_COMPILED_TOLERANCE = 1e-4  # relative, of ten losses in fp32
_NORM_TOLERANCE = 1e-5  # absolute, of values of size 1


def run(context: Context) -> str:
    """All of them, each a check."""
    texts = [_attention(context), _compiled(context), _apex(context)]
    return "; ".join(texts)


def _attention(context: Context) -> str:
    lengths = [5, 17, 3] if context.rehearse else [512, 0, 497, 15, 512, 0, 1, 511, 300]
    if context.rehearse:
        compare(segment_attention, torch.float32, "cpu", lengths, num_heads=2, head_size=8)
        return "attention: the reference alone"
    found = []
    for name, (kernel, dtypes) in KERNELS.items():
        for dtype in dtypes:
            label = f"{name} {str(dtype).removeprefix('torch.')}"
            try:
                difference = compare(kernel, dtype, "cuda", lengths)
            except (RuntimeError, NotImplementedError, TypeError) as error:
                context.check(f"attention {label}", False, error=str(error).splitlines()[0])
                continue
            context.check(
                f"attention {label}", max(difference.values()) <= TOLERANCE[dtype], tolerance=TOLERANCE[dtype], **difference
            )
            found.append(f"{label} {max(difference.values()):.1e}")
    return "attention beside fp32: " + ", ".join(found)


def _compiled(context: Context) -> str:
    """Losses with model.compile on and off."""
    if not optional(ModelConfig, "model.compile=true"):
        return "no key model.compile"
    losses = {}
    for value in ("false",) if context.rehearse else ("false", "true"):
        forget_compiled()
        with open_session(small_config(context, f"model.compile={value}"), make_run(context, f"compile_{value}")) as session:
            for _ in range(10):
                session.step()
            losses[value] = session.losses()
    if context.rehearse:
        return "model.compile: false alone"
    largest = max(differences(losses["true"], losses["false"]))
    context.check("compiled", largest <= _COMPILED_TOLERANCE, difference=largest, tolerance=_COMPILED_TOLERANCE)
    return f"compiled beside eager {largest:.1e}"


def _apex(context: Context) -> str:
    """Apex's FusedAdam, FusedLAMB and FusedLayerNorm beside this project's and torch's."""
    present = {name: pair for name, pair in pairs_to_compare().items() if pair[0] is not None}
    if not present:
        context.record(apex="absent")
        return "Apex absent"
    device, found = Device(torch.device("cuda", 0), "nccl"), []
    for name, (apex, ours) in present.items():
        verdict = judge_optimizer(name, apex, ours, device)
        context.check(f"Apex {name}", verdict["fault"] is None)
        found.append(verdict["text"])
    norms = [kind(768, eps=1e-5).cuda() for kind in (layer_norm_class(), torch.nn.LayerNorm)]
    x = torch.randn(512, 768, device="cuda")
    difference = float((norms[0](x) - norms[1](x)).abs().max())
    context.check("Apex LayerNorm", difference <= _NORM_TOLERANCE, difference=difference)
    return "; ".join([*found, f"its LayerNorm differs by {difference:.1e}"])
