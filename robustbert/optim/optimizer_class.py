"""Which class megatron-core builds its optimizers of.

megatron-core takes Apex's FusedAdam where it finds it. Elsewhere it would fall back to torch's AdamW, whose distributed checkpoints
it cannot read; with a class of Apex's shape it runs the same code as with Apex. It knows nothing of LAMB: Apex's is taken where it
computes what FusedLamb does, otherwise FusedLamb.
"""

import functools

import torch

from robustbert.optim.apex import apex_lamb
from robustbert.optim.fused_adam import FusedAdam
from robustbert.optim.fused_lamb import FusedLamb


def give_to_megatron(name: str, has_whole_tensors: bool = False) -> type[torch.optim.Optimizer]:
    """Make megatron-core build what `optim.name` says ("adam", "lamb"); returns the class. Holds until the next call.

    has_whole_tensors: no process holds a part of a tensor only, and there is a weight decay; Apex's LAMB needs both.
    """
    import megatron.core.optimizer as optimizer
    import megatron.core.optimizer.distrib_optimizer as distrib_optimizer

    adam = _adam_that_megatron_found() or FusedAdam  # asked first: what follows changes the answer
    lamb = (apex_lamb() if has_whole_tensors and apex_is_usable() else None) or FusedLamb
    chosen = lamb if name == "lamb" else adam
    optimizer.Adam = distrib_optimizer.Adam = chosen
    optimizer.USING_PYTORCH_OPTIMIZER = False
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_APEX_OPTIMIZER = True
    return chosen


def apex_is_usable() -> bool:
    """Whether Apex's kernels can run in this process."""
    return torch.cuda.is_available()


@functools.cache
def _adam_that_megatron_found() -> type[torch.optim.Optimizer] | None:
    """Apex's FusedAdam, or Transformer Engine's; None where megatron-core found neither."""
    import megatron.core.optimizer as optimizer

    return None if optimizer.USING_PYTORCH_OPTIMIZER else optimizer.Adam
