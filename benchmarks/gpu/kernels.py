"""Kernels beside plain ones: attention by cumulative lengths, a compiled model, Apex where it is installed."""

import torch

from benchmarks.gpu.attention_reference import KERNELS, TOLERANCE, compare, segment_attention
from benchmarks.gpu.context import Context
from benchmarks.gpu.numerics import differences
from benchmarks.gpu.prepare import make_run, optional, small_config
from benchmarks.gpu.session import forget_compiled, open_session
from robustbert.config import ModelConfig

_COMPILED_TOLERANCE = 1e-4  # relative, of ten losses in fp32
_APEX_TOLERANCE = 1e-6  # absolute, after ten updates of weights of size 1


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
    try:
        from apex.normalization import FusedLayerNorm
        from apex.optimizers import FusedAdam as ApexAdam
        from apex.optimizers import FusedLAMB as ApexLamb
    except ImportError:
        context.record(apex="absent")
        return "Apex absent"
    from robustbert.optim.fused_adam import FusedAdam
    from robustbert.optim.fused_lamb import FusedLamb

    options = dict(lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.01)
    adam = _largest_after_updates(ApexAdam, FusedAdam, options)
    # Apex clips by the norm of all gradients inside LAMB unless it is told a bound that never clips.
    lamb = _largest_after_updates(lambda p, **o: ApexLamb(p, max_grad_norm=1e9, **o), FusedLamb, options)
    x = torch.randn(512, 768, device="cuda")
    norm = float((FusedLayerNorm(768, eps=1e-5).cuda()(x) - torch.nn.LayerNorm(768, eps=1e-5).cuda()(x)).abs().max())
    for name, value in (("FusedAdam", adam), ("FusedLAMB", lamb), ("LayerNorm", norm)):
        context.check(f"Apex {name}", value <= (1e-5 if name == "LayerNorm" else _APEX_TOLERANCE), difference=value)
    return f"Apex: Adam {adam:.1e}, LAMB {lamb:.1e}, LayerNorm {norm:.1e}"


def _largest_after_updates(theirs, ours, options: dict) -> float:
    """The largest difference of weights after ten updates by either optimizer with the same gradients."""
    weights = []
    for build in (theirs, ours):
        generator = torch.Generator().manual_seed(3)
        parameters = [torch.nn.Parameter(torch.randn(size, generator=generator).cuda()) for size in ((64, 32), (32,), (1000,))]
        optimizer = build(parameters, **options)
        for _ in range(10):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator).cuda()
            optimizer.step()
        weights.append([parameter.detach() for parameter in parameters])
    return max(float((mine - other).abs().max()) for mine, other in zip(*weights))
