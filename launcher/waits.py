"""Who waits for whom in a job that stands still, from what each process last did in its groups. No side effects."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.collectives import GroupRecord


@dataclass(frozen=True)
class Wait:
    """One rank waits for another. lack: what the other did not do, such as `did not start all_reduce number 12 of the ... group`."""

    rank: int
    for_rank: int
    lack: str


def find_waits(records: dict[int, list[GroupRecord]]) -> list[Wait]:
    """Every wait that the records prove. A rank without records is neither in the wrong nor waiting."""
    views: dict[tuple, dict[int, GroupRecord]] = defaultdict(dict)
    for rank, own in records.items():
        for record in own:
            views[record.group, tuple(record.ranks)][rank] = record
    return [wait for view in views.values() for wait in (*_in_collectives(view), *_in_transfers(view))]


def find_ends(waits: list[Wait]) -> set[int]:
    """The ranks that others wait for and that wait for nobody."""
    return {wait.for_rank for wait in waits} - {wait.rank for wait in waits}


def find_circle(waits: list[Wait]) -> list[Wait]:
    """Waits that lead back to their first rank, where there are any: each rank's first wait, followed as far as it goes."""
    first = {wait.rank: wait for wait in reversed(waits)}
    for start in sorted(first):
        path: list[Wait] = []
        while start in first and start not in [wait.rank for wait in path]:
            path.append(first[start])
            start = path[-1].for_rank
        if start in first:
            return path[[wait.rank for wait in path].index(start) :]
    return []


def _in_collectives(view: dict[int, GroupRecord]) -> Iterator[Wait]:
    for rank, record in view.items():
        number = record.waiting
        if number is None:
            continue
        what = f"{record.waiting_operation} number {number} of the {group_name(record)}"
        # Whose record of the group does not reach so far back has done much else since: it is not there either.
        late = [other for other, theirs in view.items() if (theirs.enqueued or 0) < number]
        yield from (Wait(rank, other, f"did not start {what}") for other in late)
        begun = [other for other, theirs in view.items() if (theirs.started or 0) >= number]
        if not late and begun:
            yield from (Wait(rank, other, f"has queued {what} and its GPU did not begin it") for other in view if other not in begun)


def _in_transfers(view: dict[int, GroupRecord]) -> Iterator[Wait]:
    for rank, record in view.items():
        for sends, peer in record.transfers:
            if peer in view and (not sends, rank) not in view[peer].transfers:
                missing = f"receive from rank {rank}" if sends else f"send to rank {rank}"
                yield Wait(rank, peer, f"did not {missing} in the {group_name(record)}")


def group_name(record: GroupRecord) -> str:
    """For instance `tensor-parallel group` for TENSOR_MODEL_PARALLEL_GROUP."""
    text = record.description.lower()
    if text == "default_pg":
        return "group of all ranks"
    if text in ("", "undefined"):
        return f"group {record.group}"
    text = text.removesuffix("_with_cp")
    return re.sub(r"(?<=_)model_parallel|parallel", lambda match: "-parallel", text).replace("_-", "-").replace("_", " ")
