"""Apex's optimizers where they are installed, in the form that gives our updates."""

import math

import torch

from robustbert.optim.fused_adam import FusedAdam
from robustbert.optim.fused_lamb import FusedLamb


def pairs_to_compare() -> dict[str, tuple[type[torch.optim.Optimizer] | None, type[torch.optim.Optimizer]]]:
    """By Apex's name: its class or None, and ours that has to give the same weights."""
    return {"FusedAdam": (apex_adam(), FusedAdam), "FusedLAMB": (apex_lamb(), FusedLamb)}


def apex_adam() -> type[torch.optim.Optimizer] | None:
    """Apex's FusedAdam, which megatron-core takes by itself where it is there; None where it is not."""
    try:
        from apex.optimizers import FusedAdam as ApexAdam
    except ImportError:
        return None
    return ApexAdam


def apex_lamb() -> type[torch.optim.Optimizer] | None:
    """Apex's FusedLAMB without its own clipping; None where Apex or its kernels are not there.

    It takes the norms of what lies on its own process, so it is right only where every process has whole tensors; and it takes a
    weight decay of 0 as the sign that a group has no trust ratio.
    """
    try:
        import amp_C  # noqa: F401
        from apex.optimizers import FusedLAMB
    except ImportError:
        return None
    return without_clipping(FusedLAMB)


def without_clipping(fused_lamb: type) -> type[torch.optim.Optimizer]:
    """The class of Apex's interface with no bound on the gradients' norm, which the update has clipped already."""

    class ApexLamb(fused_lamb):
        def __init__(self, params, capturable=False, **options):
            assert not capturable, "FusedLAMB knows no recording of its update"
            super().__init__(params, max_grad_norm=math.inf, use_nvlamb=False, **options)

    return ApexLamb
