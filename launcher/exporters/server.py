"""The HTTP server of an exporter: the first free port of a hundred."""

from collections.abc import Callable, Iterable

NUM_PORTS = 100


class NoFreePort(OSError):
    """All of the ports are taken, or the address is not this machine's."""


class Collector:
    """What prometheus_client asks at every scrape."""

    def __init__(self, collect: Callable[[], Iterable]):
        self.collect = collect

    def describe(self) -> list:
        """Nothing beforehand: registering must not collect."""
        return []


def serve(collect: Callable[[], Iterable], first_port: int, bind_address: str):
    """Answer scrapes in threads of this process; returns (server, registry), the port is server.server_port.

    collect: called at each scrape, gives the metric families. NoFreePort where none of NUM_PORTS ports can be opened.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(Collector(collect))
    last_port = min(65535, first_port + NUM_PORTS - 1)
    for port in range(first_port, last_port + 1):
        try:
            server, _ = start_http_server(port, bind_address or "0.0.0.0", registry)
        except OSError as error:
            reason = error
        else:
            return server, registry
    where = f"{bind_address or '0.0.0.0'}, ports {first_port} to {last_port}"
    raise NoFreePort(f"no metrics for Prometheus: {where}: {reason.strerror or reason}; training goes on")


def target_address(port: int, bind_address: str, host: str) -> str:
    """Where Prometheus finds an exporter of this host."""
    is_loopback = bind_address == "localhost" or bind_address.startswith("127.") or bind_address == "::1"
    return f"127.0.0.1:{port}" if is_loopback else f"{host}:{port}"
