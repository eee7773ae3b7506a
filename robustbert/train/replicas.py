"""Silent corruption: data-parallel replicas must hold the same weights, bit by bit; a rank whose sums differ is named."""

import time
from collections import Counter

import torch
import torch.distributed as dist

from robustbert.parallel.mesh import Mesh
from robustbert.run_directory import RunDirectory

_CHUNK = 2**22  # elements: bounds the memory of a sum
_OTHERS_WAIT_S = 10.0  # so that the rank that differs is the first one to fail


class ReplicasDiffer(RuntimeError):
    """This process' weights are not those of the other data-parallel replicas: its memory or its arithmetic is at fault."""


def check_replicas(model, mesh: Mesh, run: RunDirectory, step: int) -> None:
    """Compare checksums of the weights over the data-parallel ranks. A collective call.

    ReplicasDiffer on the ranks in the minority (event replicas_differ); where no majority exists, on all that disagree.
    """
    model.complete_weights()
    sums = torch.tensor([mesh.pp_rank, mesh.tp_rank, *checksums(model)], device=mesh.device.torch_device)
    gathered = [torch.empty_like(sums) for _ in range(mesh.world_size)]
    if mesh.world_size > 1:
        dist.all_gather(gathered, sums)
    culprits = differing_ranks([tuple(tensor.tolist()) for tensor in gathered]) if mesh.world_size > 1 else []
    if not culprits:
        return
    if mesh.is_main:
        run.append_event("replicas_differ", step=step, ranks=culprits)
    if mesh.rank not in culprits:
        time.sleep(_OTHERS_WAIT_S)
    names = ", ".join(map(str, culprits))
    raise ReplicasDiffer(f"the weights of rank {names} are not those of the other replicas after step {step}")


@torch.no_grad()
def checksums(model) -> tuple[int, int]:
    """Two sums modulo 2^64 over the weights' bits, plain and weighted by position: any single changed bit changes the first."""
    plain = weighted = 0
    position = 0
    for parameter in model.parameters():
        words = parameter.detach().reshape(-1).view(torch.int32 if parameter.element_size() == 4 else torch.int16)
        for chunk in words.split(_CHUNK):
            values = chunk.to(torch.int64)
            places = torch.arange(position + 1, position + 1 + len(values), device=values.device)
            plain, weighted = plain + int(values.sum()), weighted + int((values * places).sum())
            position += len(values)
    return _signed(plain), _signed(weighted)


def differing_ranks(records: list[tuple[int, int, int, int]]) -> list[int]:
    """Of the ranks' (stage, tensor-parallel rank, sum, sum): those whose sums are not the majority's of their replicas."""
    culprits = []
    for place in dict.fromkeys(record[:2] for record in records):
        replicas = {rank: record[2:] for rank, record in enumerate(records) if record[:2] == place}
        counts = Counter(replicas.values()).most_common(2)
        has_majority = len(counts) == 1 or counts[0][1] > counts[1][1]
        culprits += [rank for rank, sums in replicas.items() if not has_majority or sums != counts[0][0]]
    return sorted(culprits)


def _signed(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
