"""The exporter of one node: `python -m launcher.exporters.node`, started by the node's first worker, ended with it.

The node's processes send it their reports as datagrams; it keeps the newest of each rank. It imports no torch.
"""

import argparse
import json
import math
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.exporters.server import serve
from launcher.processes import die_with_parent

NO_PLACE = 3  # exit code: no port is free, or the node has an exporter
_LONGEST_REPORT = 65536  # bytes
_CREDENTIALS = struct.Struct("3i")  # pid, user, group of the sender


def socket_name(job_mark: str, host: str) -> bytes:
    """The node's socket in Linux' abstract name space: no file that could be left behind."""
    return b"\0" + f"robustbert-{job_mark}-{host}".encode()[:100]


@dataclass(frozen=True)
class RankReport:
    """A report that has the right form; values are finite or NaN, seconds or bytes."""

    rank: int
    time: float
    step: int
    own_s: float
    parts: dict[str, float]
    memory: dict[str, float]

    @classmethod
    def parse(cls, data: bytes) -> "RankReport":
        """ValueError, KeyError or TypeError where it is none of ours."""
        message = json.loads(data)
        numbers = {key: _number(message[key]) for key in ("time", "step", "own_s")}
        groups = {key: {str(name): _number(value) for name, value in message[key].items()} for key in ("parts", "memory")}
        return cls(rank=int(message["rank"]), **numbers, **groups)


class NodeReports:
    """The newest report of each rank, as metric families."""

    def __init__(self):
        self._reports: dict[int, RankReport] = {}

    def take(self, report: RankReport) -> None:
        self._reports = self._reports | {report.rank: report}  # a scrape in another thread sees the old one or the new one

    def collect(self) -> Iterator:
        """Called at a scrape."""
        from prometheus_client.core import GaugeMetricFamily

        reports = self._reports

        def family(name: str, help: str, values: str, label: str | None = None):
            gauge = GaugeMetricFamily(name, help, labels=["rank"] + ([label] if label else []))
            for rank, report in sorted(reports.items()):
                value = getattr(report, values)
                for key, number in value.items() if label else [(None, value)]:
                    gauge.add_metric([str(rank)] + ([key] if label else []), number)
            return gauge

        yield family("robustbert_rank_step", "The newest logged step of a rank.", "step")
        parts = "A step of the last interval by its parts, which add up to it; a mean."
        yield family("robustbert_rank_step_part_seconds", parts, "parts", "part")
        yield family("robustbert_rank_own_seconds", "A step of the last interval without its collectives; a mean.", "own_s")
        yield family("robustbert_rank_memory_bytes", "Memory of a rank's process.", "memory", "kind")
        yield family("robustbert_rank_report_timestamp_seconds", "When a rank made its newest report.", "time")


def listen(channel: socket.socket, reports: NodeReports) -> None:
    """Take reports for ever; what is not one, or comes from another user, is passed over."""
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    while True:
        data, ancillary, _, _ = channel.recvmsg(_LONGEST_REPORT, socket.CMSG_SPACE(_CREDENTIALS.size))
        if _sender(ancillary) != os.getuid():
            continue
        try:
            reports.take(RankReport.parse(data))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def main(argv: list[str]) -> int:
    """Serve until the parent ends; the port is the first line of standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m launcher.exporters.node",
        description="The exporter of one node; a worker starts it.",
        epilog="example: python -m launcher.exporters.node --job 5f2c --host node7 --port 9400 --bind 127.0.0.1 --parent $$",
    )
    parser.add_argument("--job", required=True, metavar="MARK", help="the job's mark, of which the socket has its name")
    parser.add_argument("--host", required=True, metavar="NAME", help="this node")
    parser.add_argument("--port", required=True, type=int, metavar="N", help="the first port tried")
    parser.add_argument("--bind", required=True, metavar="ADDRESS", help="where to listen")
    parser.add_argument("--parent", required=True, type=int, metavar="PID", help="ends with this process")
    options = parser.parse_args(argv)
    die_with_parent()
    if os.getppid() != options.parent:  # it ended before that was said
        return 1
    reports = NodeReports()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.bind(socket_name(options.job, options.host))
            server, _ = serve(reports.collect, options.port, options.bind)
        except OSError as error:  # NoFreePort, or another exporter is there for this node
            print(error, file=sys.stderr)
            return NO_PLACE
        print(server.server_port, flush=True)
        listen(channel, reports)
    return 0


def _number(value) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isinf(value):
        raise ValueError("not a number")
    return value


def _sender(ancillary: list) -> int | None:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return _CREDENTIALS.unpack(data)[1]
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
