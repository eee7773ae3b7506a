"""`python -m benchmarks.startup`: what a process does before its first step, by the size of its job.

Measured on one machine, in one process where that is possible: process groups of rank 0 under torch's fake process group
(without NCCL's or gloo's own connections), the store at which the processes meet, by threads that each join it, and the
first batch of a rank. A job whose work per rank grows with the number of ranks does not start on 1,024 of them.
"""

import argparse
import contextlib
import json
import socket
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

from launcher.heartbeats import Heartbeats
from robustbert.config import ParallelConfig
from robustbert.parallel.mesh import open_mesh
from robustbert.plan.simulated_device import SimulatedDevice
from robustbert.plan.simulation import fake_job
from robustbert.run_directory import RunDirectory


def groups_s(num_ranks: int) -> float:
    """Seconds until rank 0 of a job of tensor 8 x pipeline 4 has made all its groups."""
    started = time.perf_counter()
    with fake_job(0, num_ranks), open_mesh(SimulatedDevice.of("cpu"), ParallelConfig(tensor=8, pipeline=4)):
        return time.perf_counter() - started


def meeting_s(num_ranks: int) -> float:
    """Seconds until so many clients have joined one store, written their key, and seen that all are there."""
    timeout = timedelta(seconds=120)
    started = time.perf_counter()
    store = TCPStore("127.0.0.1", 0, num_ranks, is_master=True, timeout=timeout, wait_for_workers=False)

    def join(rank: int) -> None:
        client = TCPStore("127.0.0.1", store.port, num_ranks, is_master=False, timeout=timeout, wait_for_workers=False)
        client.add("joined", 1)
        client.set(f"rank {rank}", "here")

    with ThreadPoolExecutor(64) as threads:
        list(threads.map(join, range(num_ranks)))
    assert store.add("joined", 0) == num_ranks
    return time.perf_counter() - started


def heartbeats_s(num_ranks: int) -> float:
    """Seconds until the supervisor has heard a first sign of life from so many processes."""
    with Heartbeats("mark") as heartbeats, contextlib.ExitStack() as connections:
        started = time.perf_counter()
        for rank in range(num_ranks):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", heartbeats.port)))
            hello = {"rank": rank, "host": f"n{rank // 8}", "pid": rank, "token": "mark"}
            beat = {"step": 1, "phase": "waiting for data", "count": 1, "age_s": 0.0}
            connection.sendall(f"{json.dumps(hello)}\n{json.dumps(beat)}\n".encode())
        while sum(pulse.step == 1 for pulse in heartbeats.pulses().values()) < num_ranks:
            if time.perf_counter() - started > 60:
                raise TimeoutError(f"not all of {num_ranks} processes were heard within 60 s")
            time.sleep(0.002)
        return time.perf_counter() - started


def events_s(num_ranks: int) -> float:
    """Seconds until an event of every process is in one log, written by eight threads at a time."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        started = time.perf_counter()
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda rank: run.append_event("rank_lost", rank=rank), range(num_ranks)))
        elapsed = time.perf_counter() - started
        assert len({event["rank"] for event in run.events()}) == num_ranks
        return elapsed


MEASURED = {"groups": groups_s, "store": meeting_s, "heartbeats": heartbeats_s, "event log": events_s}


def measure(sizes: tuple[int, ...], rounds: int) -> dict[str, dict[int, float]]:
    """The median seconds of every part at every size, the sizes in turn."""
    times = {name: {size: [] for size in sizes} for name in MEASURED}
    for _ in range(rounds):
        for name, function in MEASURED.items():
            for size in sizes:
                times[name][size].append(function(size))
    return {name: {size: statistics.median(row) for size, row in rows.items()} for name, rows in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024], help="numbers of processes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = measure(tuple(options.sizes), options.rounds)
    print(f"{'seconds for all':<16}" + "".join(f"{size:>10,}" for size in options.sizes) + "   ms a process")
    for name, row in found.items():
        shown = "".join(f"{row[size]:>10.3f}" for size in options.sizes)
        print(f"{name:<16}{shown}   " + " ".join(f"{row[size] / size * 1e3:.3f}" for size in options.sizes))


if __name__ == "__main__":
    main()
