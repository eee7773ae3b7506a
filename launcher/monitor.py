"""`launcher monitor`: Prometheus, and Grafana where it is installed, for all runs of a folder, until Ctrl-C."""

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from launcher.exporters.targets import FOLDER
from launcher.processes import die_with_parent
from robustbert.config import ConfigError

ADDRESS = "127.0.0.1"
_RETENTION = "60d"  # longer than a run: Prometheus' own 15 days are not
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_POLL_S = 0.2
_GRAFANA_PROGRAMS = ("grafana-server", "grafana")
_GRAFANA_HOMES = ("/usr/share/grafana", "/usr/local/share/grafana", "/opt/grafana")


@dataclass(frozen=True)
class Server:
    """A server to be started: its command, what is added to its environment, where it answers when it is ready."""

    name: str
    command: list[str]
    url: str
    ready_path: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)


def monitor(options: argparse.Namespace) -> int:
    """Start them, say where they are, wait. ConfigError: Prometheus is missing or does not start, a port is taken."""
    folder = Path(options.dir).absolute()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; name the one that holds the runs: launcher monitor --dir FOLDER")
    own = folder / FOLDER  # runs write their addresses here as *.json
    configuration = build_configuration(folder, options.alertmanager)
    servers = [_prometheus(own, options.port)]
    if grafana := _grafana(own, options.grafana_port, servers[0].url):
        servers.append(grafana)
    if options.dry_run:
        print(f"# {own / 'server' / 'prometheus.yml'}\n{configuration}")
        print("\n".join(shlex.join([*(f"{key}={value}" for key, value in server.environment.items()), *server.command]) for server in servers))
        return 0
    for server in servers:
        _require_free_port(server)
    (own / "server").mkdir(parents=True, exist_ok=True)
    (own / "server" / "prometheus.yml").write_text(configuration, encoding="utf-8")
    with ExitStack() as stack:
        running = [(server, stack.enter_context(started(server))) for server in servers]
        print(_where(folder, servers), flush=True)
        with _stopped_by_signals() as stop:
            while not stop:
                for server, process in running:
                    if process.poll() is not None:
                        raise ConfigError(f"{server.name} has ended: {_last_words(server.log)}")
                time.sleep(_POLL_S)
    print("stopped")
    return 0


def build_configuration(folder: Path, alertmanager: str | None = None) -> str:
    """The shipped prometheus.yml for the runs of `folder`, its paths absolute."""
    shipped = files("monitoring")
    text = shipped.joinpath("prometheus.yml").read_text(encoding="utf-8")
    for written, absolute in (
        ('"runs/.prometheus/*.json"', folder / FOLDER / "*.json"),
        ("rules/*.yml", Path(str(shipped)) / "rules" / "*.yml"),
    ):
        assert written in text, written
        text = text.replace(written, json.dumps(str(absolute)))
    if alertmanager:
        text += f"alerting:\n  alertmanagers:\n    - static_configs: [{{targets: [{json.dumps(alertmanager)}]}}]\n"
    return text


@contextmanager
def started(server: Server) -> Iterator[subprocess.Popen]:
    """The server, ready; it ends with the block, and with this process. ConfigError with its last words where it does not start."""
    with open(server.log, "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | server.environment,
            start_new_session=True,  # Ctrl-C is for us: we end it in order
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not _is_ready(server):
            if process.poll() is not None:
                raise ConfigError(f"{server.name} does not start: {_last_words(server.log)} ({server.log})")
            if time.monotonic() > deadline:
                raise ConfigError(f"{server.name} is not ready after {_READY_TIMEOUT_S:.0f} s; see {server.log}")
            time.sleep(_POLL_S)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _prometheus(own: Path, port: int) -> Server:
    program = shutil.which("prometheus")
    if program is None:
        raise ConfigError(
            "prometheus is not on PATH; install it (Debian: apt install prometheus; others: https://prometheus.io/download), or give "
            f"your own Prometheus {files('monitoring').joinpath('prometheus.yml')}"
        )
    command = [
        program,
        f"--config.file={own / 'server' / 'prometheus.yml'}",
        f"--storage.tsdb.path={own / 'server' / 'data'}",
        f"--storage.tsdb.retention.time={_RETENTION}",
        f"--web.listen-address={ADDRESS}:{port}",
    ]
    return Server("prometheus", command, f"http://{ADDRESS}:{port}", "/-/ready", own / "server" / "prometheus.log")


def _grafana(own: Path, port: int, prometheus_url: str) -> Server | None:
    """Grafana with our data source and dashboards; None where it is not installed."""
    program = next((path for name in _GRAFANA_PROGRAMS if (path := shutil.which(name))), None)
    home = next((path for path in _GRAFANA_HOMES if Path(path).is_dir()), None)
    if program is None or home is None:
        return None
    shipped = Path(str(files("monitoring"))) / "grafana"
    environment = {
        "ROBUSTBERT_PROMETHEUS_URL": prometheus_url,
        "ROBUSTBERT_DASHBOARDS": str(shipped / "dashboards"),
        "GF_PATHS_PROVISIONING": str(shipped / "provisioning"),
        "GF_PATHS_DATA": str(own / "server" / "grafana"),
        "GF_PATHS_LOGS": str(own / "server" / "grafana"),
        "GF_SERVER_HTTP_ADDR": ADDRESS,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",  # whoever is on this machine may look; nobody may change
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(shipped / "dashboards" / "robustbert_fleet.json"),
    }
    command = [program, *(["server"] if Path(program).name == "grafana" else []), f"--homepath={home}"]
    return Server("grafana", command, f"http://{ADDRESS}:{port}", "/api/health", own / "server" / "grafana.log", environment)


def _where(folder: Path, servers: list[Server]) -> str:
    lines = [f"{server.name:11} {server.url}" for server in servers]
    lines.append(f"{'runs':11} those of {folder} that have monitoring.prometheus_port")
    lines.append(f"{'alerts':11} {servers[0].url}/alerts")
    if len(servers) == 1:
        shipped = files("monitoring").joinpath("grafana", "dashboards")
        lines.append(f"{'dashboards':11} Grafana is not installed here; import these into yours: {shipped}/*.json")
    return "\n".join([*lines, "Ctrl-C stops"])


def _require_free_port(server: Server) -> None:
    port = int(server.url.rpartition(":")[2])
    try:
        socket.create_server((ADDRESS, port)).close()
    except OSError:
        option = "--port" if server.name == "prometheus" else "--grafana-port"
        raise ConfigError(f"{server.name} cannot listen on {ADDRESS}:{port}, it is taken; take another: {option} {port + 1}") from None


def _is_ready(server: Server) -> bool:
    with suppress(urllib.error.URLError, OSError):
        with urllib.request.urlopen(server.url + server.ready_path, timeout=2) as answer:
            return answer.status == 200
    return False


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """A list that is empty until Ctrl-C or a SIGTERM."""
    seen: list[int] = []
    former = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
