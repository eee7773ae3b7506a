"""A Slurm cluster on this machine: a controller and several nodes of its own configuration, everything on the loopback.

Needs root and Debian's slurmctld, slurmd, slurm-client and munge. GPUs are pretended by character devices.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_CONF = """\
ClusterName=rb
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
KillWait=5
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=node[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port={first_port}-{last_port} CPUs=4 RealMemory=4000 Gres=gpu:4
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class SlurmCluster:
    """Up after construction; close() ends every process of it."""

    def __init__(self, folder: Path, num_nodes: int):
        self.folder = folder
        self.num_nodes = num_nodes
        self._daemons: dict[str, subprocess.Popen] = {}
        for name in ("state", *(f"spool.node{number + 1}" for number in range(num_nodes))):
            (folder / name).mkdir()
        port = _free_ports(num_nodes + 1)
        settings = {"host": socket.gethostname().partition(".")[0], "folder": folder, "port": port, "nodes": num_nodes}
        settings |= {"first_port": port + 1, "last_port": port + num_nodes}
        (folder / "slurm.conf").write_text(_CONF.format(**settings))
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/fakegpu[0-3]\n")
        for number in range(4):
            os.mknod(folder / f"fakegpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        files = [f"--{name}={folder / f'munge.{ending}'}" for name, ending in _MUNGE_FILES]
        try:
            self._start("munged", ["munged", "--force", "--foreground", *files])
            self._wait_for(lambda: (folder / "munge.sock").exists(), "munged")
            self._start("slurmctld", ["slurmctld", "-D", "-c"])
            for number in range(num_nodes):
                self.start_node(f"node{number + 1}")
            self._wait_for(lambda: self.run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(num_nodes), "the nodes")
        except BaseException:
            self.close()
            raise

    def run(self, *command: str) -> str:
        """One of Slurm's commands; its output."""
        done = subprocess.run(command, env=os.environ | self.environ, capture_output=True, text=True, timeout=60)
        return done.stdout

    def start_node(self, name: str) -> None:
        self._start(name, ["slurmd", "-D", "-N", name])

    def kill_node(self, name: str) -> None:
        """All processes of the node end at once: its slurmd, its steps' and theirs."""
        own = [process for process in psutil.process_iter() if self._is_of_node(process, name)]
        steps = {parent for process in own for parent in _parents(process) if "slurmstepd" in " ".join(_words(parent))}
        for process in (*steps, *own, psutil.Process(self._daemons[name].pid)):
            try:
                process.kill()
            except psutil.Error:
                continue
        self._daemons.pop(name).wait()

    def close(self) -> None:
        self.run("scancel", "--user=root", "--signal=KILL")
        for number in range(self.num_nodes):
            if f"node{number + 1}" in self._daemons:
                self.kill_node(f"node{number + 1}")
        for daemon in self._daemons.values():
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()

    def _is_of_node(self, process: psutil.Process, name: str) -> bool:
        """Whether Slurm has started the process, or one that started it, on the node of this cluster."""
        try:
            environ = process.environ()
        except psutil.Error:
            return False
        return environ.get("SLURMD_NODENAME") == name and environ.get("SLURM_CONF", "").startswith(str(self.folder))

    def _start(self, name: str, command: list[str]) -> None:
        log = open(self.folder / f"{name}.out", "ab")
        program = shutil.which(command[0]) or f"/usr/sbin/{command[0]}"
        self._daemons[name] = subprocess.Popen(
            [program, *command[1:]], env=os.environ | self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )

    def _wait_for(self, condition, what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text(errors="replace")[-800:] for path in self.folder.glob("*.out"))
                raise RuntimeError(f"{what} did not come up within 30 s\n{logs}")
            time.sleep(0.1)


_MUNGE_FILES = (
    *(("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed")),
)


def why_not_here() -> str | None:
    """Why a Slurm cluster cannot be started on this machine; None where it can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if os.geteuid() != 0 or missing:
        return f"a Slurm cluster of one's own needs root and Debian's slurmctld slurmd slurm-client munge (missing: {missing or 'root'})"
    return None


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _free_ports(number: int) -> int:
    """The first of so many free ports in a row."""
    for first in range(26800 + os.getpid() % 1000, 32000, number):
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise RuntimeError("no free ports")
