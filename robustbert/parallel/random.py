"""Random numbers of dropout, as a pure function of where they are drawn: no generator's state outlives a micro-batch.

Dropout depends on (seed, step, micro-batch of the global batch, pipeline stage) and, where activations are split
over the tensor-parallel ranks, on that rank. So a resumed run draws what the uninterrupted run would have drawn,
at any data-parallel size, and a checkpoint holds no random state.
"""

import contextlib
import hashlib

import torch

from robustbert.parallel.mesh import Mesh


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from the parts; different parts give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_dropout(seed: int, step: int, micro_batch: int, mesh: Mesh) -> None:
    """Set the generators for one micro-batch's forward pass on this stage.

    micro_batch: its number within the global batch, over all data-parallel ranks.
    """
    place = (seed, step, micro_batch, mesh.pp_rank)
    if mesh.tp_size > 1:
        # Where every tensor-parallel rank holds the same activations, their dropout is the same; elsewhere it has this generator.
        from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

        tracker = get_cuda_rng_tracker()
        tracker.reset()
        tracker.add("model-parallel-rng", derived_seed("split", *place, mesh.tp_rank))
    torch.manual_seed(derived_seed("replicated", *place))


def split_dropout_context(active: bool):
    """A context for dropout over activations that are split over the tensor-parallel ranks."""
    if not active:
        return contextlib.nullcontext()
    from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

    return get_cuda_rng_tracker().fork()
