"""A real Prometheus with the shipped configuration and rules, in which time passes faster.

Every time of the shipped files is divided by FACTOR, so that an hour of a rule is half a minute of a test: the durations of
`for:` and of ranges (`[1h]`), and the seconds that expressions compare with (SECONDS). Shares, counts and steps stay.
"""

import json
import re
import socket
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from pathlib import Path

from launcher.monitor import Server, build_configuration
from tests.monitoring.shipped import FOLDER

FACTOR = 120
SECONDS = {"> 600": "> 5", "> 3600": "> 30"}
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}


def scaled(text: str) -> str:
    """A file of rules with its times divided by FACTOR."""

    def shorter(match: re.Match) -> str:
        return f"{match[1]}{int(match[2]) * _UNITS_MS[match[3]] // FACTOR}ms"

    for written, short in SECONDS.items():
        text = text.replace(written, short)
    return re.sub(r"((?:^\s*for: |\[))(\d+)([smh])", shorter, text, flags=re.MULTILINE)


def alertmanager_server(folder: Path) -> Server:
    """An Alertmanager that keeps what it is told; started by launcher.monitor.started."""
    folder.mkdir(parents=True)
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--cluster.listen-address="]
    return Server("alertmanager", command, f"http://{address}", "/-/ready", folder / "alertmanager.log")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class FastPrometheus:
    """Its files in `folder`, for the runs below `runs`; `server` is started by launcher.monitor.started."""

    def __init__(self, folder: Path, runs: Path, alertmanager: Server | None = None):
        (folder / "rules").mkdir(parents=True)
        (runs / ".prometheus").mkdir(parents=True)
        for path in (FOLDER / "rules").glob("*.yml"):
            (folder / "rules" / path.name).write_text(scaled(path.read_text()))
        told = alertmanager and alertmanager.url.removeprefix("http://")
        text = build_configuration(runs, told).replace(str(FOLDER / "rules"), str(folder / "rules"))
        (folder / "prometheus.yml").write_text(re.sub(r"(_interval:) 15s", r"\1 1s", text))
        port = free_port()
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        self.server = Server("prometheus", command, f"http://127.0.0.1:{port}", "/-/ready", folder / "prometheus.log")

    def ask(self, path: str, **words) -> dict:
        """The data of an answer; AssertionError with Prometheus' words where it refuses."""
        url = f"{self.server.url}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{words}: {error.read().decode()}") from None

    def values(self, expr: str) -> list[float]:
        """The values of an expression now."""
        return [float(series["value"][1]) for series in self.ask("query", query=expr)["result"]]

    def has_had(self, expr: str, since: float) -> bool:
        """Whether an expression has had any value since then."""
        return bool(self.ask("query_range", query=expr, start=since, end=time.time(), step="1s")["result"])

    def firing(self) -> dict[str, set[str]]:
        """The alerts that fire now, with their summaries: one for each set of labels, such as each rank."""
        summaries = defaultdict(set)
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                summaries[alert["labels"]["alertname"]].add(alert["annotations"]["summary"])
        return summaries
