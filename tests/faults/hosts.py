"""Hosts on one machine: a network namespace each, joined by a bridge; a script stands in for ssh. Needs root and iproute2.

Seen from outside such a host can be killed (all its processes end, its link goes down) or cut off (the link alone).
"""

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

# REMOTE_SHELL [-OPTION...] HOST COMMAND...: what ssh would do, with its exit codes.
_SHELL = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1; shift
[ -e "{folder}/down-$host" ] && {{ echo "ssh: connect to host $host: No route to host" >&2; exit 255; }}
exec ip netns exec {prefix}$host unshare --uts -- sh -c 'hostname "$0"; exec sh -c "$1"' "$host" "$*" </dev/null
"""


class Hosts:
    """`names` on a network of their own; close() removes all of it."""

    def __init__(self, names: list[str], folder: Path):
        self.names = names
        self._folder = folder
        self._prefix = f"rb{uuid.uuid4().hex[:5]}"
        self.shell = folder / "remote_shell"
        self.shell.write_text(_SHELL.format(folder=folder, prefix=self._prefix))
        self.shell.chmod(0o755)
        addresses = {name: f"10.77.0.{10 + number}" for number, name in enumerate(names)}
        self._bridge = f"{self._prefix}sw"
        _ip("netns", "add", self._bridge)
        _ip("-n", self._bridge, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._bridge, "link", "set", "br0", "up")
        for name, address in addresses.items():
            space = self._prefix + name
            _ip("netns", "add", space)
            port = f"p{name}"
            _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._bridge)
            _ip("-n", self._bridge, "link", "set", port, "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            own = Path("/etc/netns") / space
            own.mkdir(parents=True)
            lines = ["127.0.0.1 localhost", *(f"{where} {other}" for other, where in addresses.items())]
            (own / "hosts").write_text("\n".join(lines) + "\n")

    def on(self, name: str) -> tuple[str, ...]:
        """The words that bring a command to a host."""
        return ("ip", "netns", "exec", self._prefix + name, "unshare", "--uts", "--", "sh", "-c", 'hostname "$0"; exec "$@"', name)

    def cut_off(self, name: str) -> None:
        """Its link goes down; its processes go on."""
        (self._folder / f"down-{name}").touch()
        _ip("-n", self._bridge, "link", "set", f"p{name}", "down")

    def kill(self, name: str) -> None:
        """The machine is gone: its processes end at once, its link goes down."""
        (self._folder / f"down-{name}").touch()
        for pid in _ip("netns", "pids", self._prefix + name).split():
            os.kill(int(pid), signal.SIGKILL)
        _ip("-n", self._bridge, "link", "set", f"p{name}", "down")

    def close(self) -> None:
        for space in [*(self._prefix + name for name in self.names), self._bridge]:
            for pid in _ip("netns", "pids", space).split():
                os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", space)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)


def why_not_here() -> str | None:
    """Why hosts cannot be made on this machine; None where they can."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return "network namespaces as hosts need root, `ip` (Debian: iproute2) and `unshare`"
    name = f"rbprobe{uuid.uuid4().hex[:5]}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return f"network namespaces cannot be made: {done.stderr.strip()}" if done.returncode else None


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
