"""What this process did last in each of its process groups, as torch's flight recorder knows it.

On a GPU the host of a process that waits for others stands in a read of its own device, so its stacks tell nothing; the
recorder does. torch has two of them: NCCL's, and a generic one in which gloo records its collectives (but not its
transfers from one process to another). This module imports no torch: where the process has not done so there is nothing to tell.
"""

import json
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

DUMP_TIMEOUT_S = 1.0
_RECORDERS = ("_dump_nccl_trace_json", "_dump_fr_trace_json")  # NCCL's is missing where torch was built without NCCL
_MOST_TRANSFERS = 16


@dataclass(frozen=True)
class GroupRecord:
    """One process' view of one group. Collectives of a group are numbered from 1, alike on all its members."""

    group: str  # the same on all members
    description: str  # megatron-core's, such as TENSOR_MODEL_PARALLEL_GROUP
    ranks: list[int]  # of the job, in the group's order; empty where it is not known
    enqueued: int | None = None  # the newest collective's number; None where the recorder's memory does not reach so far
    operation: str = ""  # its name
    waiting: int | None = None  # the oldest that has not finished
    waiting_operation: str = ""
    started: int | None = None  # the newest that began on the device; None where torch does not time collectives
    # (sends?, peer) of unfinished transfers between two processes; the peer is a rank of the job.
    transfers: list[tuple[bool, int]] = field(default_factory=list)


def own_collectives(timeout_s: float = DUMP_TIMEOUT_S, dump: Callable[[], list[dict]] | None = None) -> list[dict] | None:
    """The GroupRecords of this process as JSON; empty without torch.distributed, None where the recorder fails, or does
    not answer in time.

    The recorder asks the GPU's driver about events, which may itself hang: so it is asked in a thread of its own.
    """
    answers: queue.Queue = queue.Queue()

    def ask() -> None:
        try:
            answers.put((dump or _dump)())
        except Exception:  # of a torch that does all this in another way
            answers.put(None)

    threading.Thread(target=ask, name="collectives", daemon=True).start()
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return None


def _dump() -> list[dict]:
    recorder, python_side = (sys.modules.get(name) for name in ("torch._C._distributed_c10d", "torch.distributed.distributed_c10d"))
    if recorder is None:
        return []
    entries: list[dict] = []
    groups: dict[str, tuple[str, list[int]]] = {}
    for name in _RECORDERS:
        if hasattr(recorder, name):
            dump = json.loads(getattr(recorder, name)())
            entries += dump.get("entries") or []  # one that is in both tells nothing new the second time
            groups |= _configured_groups(dump)
    return [asdict(record) for record in read_entries(entries, groups | _known_groups(python_side))]


def read_entries(entries: list[dict], groups: dict[str, tuple[str, list[int]]]) -> list[GroupRecord]:
    """The recorder's entries by group. groups: description and ranks of those that the process is in, with or without entries."""
    by_group: dict[str, list[dict]] = {group: [] for group in groups}
    groups = dict(groups)
    for entry in entries:
        group, description = entry["process_group"]
        groups.setdefault(group, (description, []))
        by_group.setdefault(group, []).append(entry)
    return [_read_group(group, *groups[group], own) for group, own in by_group.items()]


def _read_group(group: str, description: str, ranks: list[int], entries: list[dict]) -> GroupRecord:
    collectives = [entry for entry in entries if not entry.get("is_p2p")]
    numbers = [entry["collective_seq_id"] for entry in collectives]
    names = {entry["collective_seq_id"]: _name(entry) for entry in collectives}
    # What was captured into a CUDA graph never finishes in here; later ones that did show that it does not hold anything up.
    finished = max((entry["collective_seq_id"] for entry in collectives if _is_finished(entry)), default=0)
    waiting = min((number for number in numbers if number > finished), default=None)
    started = max((entry["collective_seq_id"] for entry in collectives if _is_started(entry)), default=None)
    enqueued = max(numbers, default=None)
    return GroupRecord(
        group,
        description,
        ranks,
        enqueued,
        names.get(enqueued, ""),
        waiting,
        names.get(waiting, ""),
        started,
        _unfinished_transfers([entry for entry in entries if entry.get("is_p2p")], ranks),
    )


def _unfinished_transfers(entries: list[dict], ranks: list[int]) -> list[tuple[bool, int]]:
    # Transfers that were batched have one number, and only the entry that ends the batch tells whether it finished.
    finished = {entry["p2p_seq_id"] for entry in entries if _is_finished(entry)}
    found = []
    for entry in entries:
        verb, _, ends = _name(entry).partition(" ")
        if entry["p2p_seq_id"] in finished or verb not in ("send", "recv"):
            continue
        peer = int(ends.replace("->", " ").replace("<-", " ").split()[1])  # send ME->PEER, recv ME<-PEER, in the group's ranks
        if peer < len(ranks):
            found.append((verb == "send", ranks[peer]))
    return found[:_MOST_TRANSFERS]


def _name(entry: dict) -> str:
    """For instance `all_reduce` of `nccl:all_reduce`."""
    return entry["profiling_name"].partition(":")[2] or entry["profiling_name"]


def _is_finished(entry: dict) -> bool:
    return bool(entry.get("retired")) or entry.get("state") == "completed"


def _is_started(entry: dict) -> bool:
    """Only with TORCH_NCCL_ENABLE_TIMING=1 does NCCL's recorder know; gloo's never does."""
    return entry.get("state") == "started" or bool(entry.get("time_discovered_started_ns"))


def _known_groups(python_side) -> dict[str, tuple[str, list[int]]]:
    """Of torch.distributed itself: also those without a collective so far."""
    world = getattr(python_side, "_world", None)
    names, members = (dict(getattr(world, key, None) or {}) for key in ("pg_names", "pg_group_ranks"))
    return {
        name: (getattr(group, "group_desc", ""), sorted(members[group], key=members[group].get))
        for group, name in names.items()
        if group in members
    }


def _configured_groups(dump: dict) -> dict[str, tuple[str, list[int]]]:
    """What NCCL's recorder itself says of the groups; gloo's says nothing."""
    configured = (dump.get("pg_config") or {}).items()
    return {name: (group.get("desc", ""), json.loads(group.get("ranks") or "[]")) for name, group in configured if name}
