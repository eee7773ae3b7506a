"""run_on_ranks: one function on N processes joined by gloo, with a time limit that kills them all."""

import multiprocessing
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable


def run_on_ranks(function: Callable, num_ranks: int, *args, timeout_s: float = 120) -> list:
    """Call function(job, *args) on `num_ranks` fresh processes; returns their results by rank.

    function and args must be picklable (a function of a module). The first rank that fails ends the others;
    its traceback is in the AssertionError. TimeoutError after `timeout_s`, naming the ranks that had not ended.
    """
    # Every rank is a fork of one server that has imported torch and megatron-core: seconds a rank are saved.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["robustbert.testing.preload"])
    port = _free_port()
    results = context.Queue()
    processes = [
        context.Process(target=_run_rank, args=(function, rank, num_ranks, port, results, args), daemon=False)
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    outcome: dict[int, object] = {}
    deadline = time.monotonic() + timeout_s
    try:
        while len(outcome) < num_ranks:
            rank, error, value = _receive(results, processes, outcome, deadline)
            assert error is None, f"rank {rank} of {num_ranks}:\n{error}"
            outcome[rank] = value
        for process in processes:
            process.join(max(0.1, deadline - time.monotonic()))
        return [outcome[rank] for rank in range(num_ranks)]
    finally:
        for process in processes:
            _kill_group(process)


def _receive(results, processes, outcome, deadline):
    while True:
        try:
            return results.get(timeout=0.2)
        except Exception as empty:  # queue.Empty of the context
            if type(empty).__name__ != "Empty":
                raise
        missing = [rank for rank in range(len(processes)) if rank not in outcome]
        if time.monotonic() > deadline:
            raise TimeoutError(f"ranks {missing} had not ended in time")
        dead = [rank for rank in missing if processes[rank].exitcode not in (None, 0)]
        if dead and results.empty():
            return dead[0], f"died with exit code {processes[dead[0]].exitcode}", None


def _run_rank(function, rank, num_ranks, port, results, args):
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from robustbert.job import Job

    torch.set_num_threads(1)
    job = Job(rank=rank, world_size=num_ranks, local_rank=rank, master_address="127.0.0.1", master_port=port)
    try:
        results.put((rank, None, function(job, *args)))
    except BaseException:
        results.put((rank, traceback.format_exc(), None))
    results.close()
    results.join_thread()


def _kill_group(process) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)  # each rank leads its own session
    except ProcessLookupError:
        pass
    process.join(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
