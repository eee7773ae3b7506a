"""Runs a job on several hosts: mpirun (of Open MPI or MPICH) starts its processes through ssh."""

import re
import shutil
from pathlib import Path

from launcher.schedulers.mpich import hydra_command, is_hydra
from launcher.schedulers.open_mpi import find_starter, mpirun_command
from robustbert.config import ClusterConfig, ConfigError

__all__ = ["build_command", "check", "find_starter", "node_names", "remote_command"]

# Without these mpirun never notices a host whose link is down.
_KEEPALIVE = {"oob_tcp_keepalive_time": 3, "oob_tcp_keepalive_intvl": 2, "oob_tcp_keepalive_probes": 2}


def check(cluster: ClusterConfig) -> None:
    """ConfigError where hosts are missing or the remote shell is not there."""
    hosts, nodes = node_names(cluster), cluster.nodes
    if len(hosts) < nodes:
        without = " (without those of cluster.exclude)" if cluster.exclude else ""
        raise ConfigError(
            f"{cluster.hostfile or 'cluster.hosts'} names {len(hosts)} hosts{without} and cluster.nodes is {nodes}; "
            "name all of them, spare ones after them"
        )
    if shutil.which(cluster.remote_shell) is None:
        raise ConfigError(f"cluster.remote_shell ({cluster.remote_shell}) was not found")


def node_names(cluster: ClusterConfig) -> list[str]:
    """All hosts but those of cluster.exclude; those beyond cluster.nodes are spare. ConfigError names the line of a hostfile that is wrong."""
    hosts = cluster.hosts if cluster.hostfile is None else read_hostfile(Path(cluster.hostfile))
    return [host for host in hosts if host not in cluster.exclude]


def read_hostfile(path: Path) -> list[str]:
    """One host a line; `slots=N`, `:N` and comments, as mpirun's hostfiles have them, are passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cluster.hostfile ({path}) cannot be read: {error}") from None
    hosts: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name = re.sub(r":\d+$", "", words[0])
        rest = [word for word in words[1:] if not re.fullmatch(r"(max[-_])?slots=\d+", word)]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) or rest:
            raise ConfigError(f"{path}, line {number}: {line.strip()!r} is no host; write its name or address, and `slots=8` if you like")
        if name in hosts:
            raise ConfigError(f"{path}, line {number}: the host {name} stands there twice")
        hosts.append(name)
    return hosts


def build_command(
    cluster: ClusterConfig, run_path: Path, python: str, starter: str, worker: str, nodes: list[str]
) -> list[str]:
    """The command that starts every process of the job on these nodes; pure, its arguments need no shell."""
    program = [python, "-m", worker, str(run_path)]
    if is_hydra(starter):
        by_ssh = ("-launcher", "ssh", "-launcher-exec", cluster.remote_shell)
        return hydra_command(starter, nodes, cluster.processes_per_node, program, by_ssh)
    agent = ("--prtemca", "plm_ssh_agent", cluster.remote_shell)
    keepalive = (word for name, value in _KEEPALIVE.items() for word in ("--prtemca", name, str(value)))
    return mpirun_command(
        starter, nodes, cluster.processes_per_node, program, (*agent, *keepalive)
    )


def remote_command(cluster: ClusterConfig, node: str, command: list[str]) -> list[str]:
    """A command on one of the nodes; its words are quoted for the remote shell by the caller."""
    return [cluster.remote_shell, node, *command]
