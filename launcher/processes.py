"""Processes of this machine: is it still the same one, which belong to a job, and the end of all of them."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import psutil

JOB_MARK = "ROBUSTBERT_JOB"  # set for every process of a job
KILL_TIMEOUT_S = 10.0


def identity(pid: int) -> str | None:
    """A text that no other process ever has, even under the same pid; None where no such process runs.

    A zombie does not run: nobody may ever wait for it, and `kill -0` cannot tell it.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if sys.platform != "linux":
            return f"{process.create_time():.2f}"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Ticks since boot, not psutil's create_time: that one moves when the clock is set.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot}:{ticks}"
    except (psutil.Error, OSError):
        return None


def job_processes(mark: str) -> list[psutil.Process]:
    """The running processes of a job: those whose environment carries its mark, and all their descendants.

    Neither process groups nor sessions nor parents would do: mpirun gives each rank a group of its own, and a helper
    that a rank started in another session has lost its parent once mpirun has ended that rank.
    """
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(JOB_MARK) == mark:
                found[process.pid] = process
                found |= {child.pid: child for child in process.children(recursive=True)}
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue
    return [process for process in found.values() if _runs(process)]


def kill_job(mark: str) -> int:
    """SIGKILL every process of the job until none is left; returns how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while (left := job_processes(mark)) and time.monotonic() < deadline:
        for process in left:
            killed.add(process.pid)
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=0.5)
    return len(killed)


def die_with_parent(signal_number: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends (Linux), so that nothing is left behind."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal_number))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
