"""The endpoint as its clients see it."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.error import HTTPError

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sriovdp.errors import SriovdpError
from sriovdp.metrics import endpoint
from sriovdp.metrics.endpoint import serve_metrics
from tests.scraping import scrape


class One(Collector):
    """One metric, or an error."""

    def __init__(self, value: float = 1.0) -> None:
        self.value: float | None = value

    def collect(self) -> Iterator[Metric]:
        """Collect it."""
        assert self.value is not None
        yield GaugeMetricFamily("one", "A number.", self.value)


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", "127.0.0.1")])
def test_metrics_are_served_until_the_end(address: str, host: str) -> None:
    """IPv4, IPv6 and all addresses; beside the collector's there are those of the process; the port is free after."""
    collector = One()
    with serve_metrics(address, 0, collector) as port:
        assert scrape(port, host)["one",] == 1.0
        collector.value = 2.0
        samples = scrape(port, host)
        assert samples["one",] == 2.0
        assert samples["process_resident_memory_bytes",] > 0
    with pytest.raises(OSError, match="refused"):
        scrape(port, host)
    with serve_metrics(address, port, collector):
        assert scrape(port, host)["one",] == 2.0


def test_a_port_in_use_is_reported() -> None:
    """The error names the address and what to do."""
    with (
        serve_metrics("127.0.0.1", 0, One()) as port,
        pytest.raises(SriovdpError, match=f"cannot be served at 127.0.0.1:{port}: Address already in use; --metrics"),
        serve_metrics("127.0.0.1", port, One()),
    ):
        pass


def test_an_address_of_another_node_is_reported() -> None:
    """As in a DaemonSet's patch that names one node's address."""
    told = r"cannot be served at \[2001:db8::1\]:9819: Cannot assign requested address"
    with pytest.raises(SriovdpError, match=told), serve_metrics("2001:db8::1", 9819, One()):
        pass


def test_dns_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent serves metrics on a node whose network it may have to make first."""

    def ask(*_: object) -> str:
        raise AssertionError("somebody waits for DNS")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname"):
        monkeypatch.setattr(socket, name, ask)
    with serve_metrics("127.0.0.1", 0, One()) as port:
        assert scrape(port)["one",] == 1.0


def test_clients_that_keep_silent_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have neither a thread each nor forever: the next client is served, and the end does not wait."""
    monkeypatch.setattr(endpoint, "_CLIENT_TIMEOUT", 0.2)
    with serve_metrics("127.0.0.1", 0, One()) as port, ExitStack() as clients:
        silent = [clients.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(3)]
        silent[1].send(b"GET /metrics HTTP/1.1\r\nHost: ")
        assert scrape(port)["one",] == 1.0
        assert [client.recv(1) for client in silent] == [b""] * 3


def test_many_scrapes_at_once_and_clients_that_leave() -> None:
    """All of them get their answer; threads do not pile up."""
    with serve_metrics("127.0.0.1", 0, One()) as port:
        before = threading.active_count()
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.send(b"GET /metrics HTTP/1.0\r\n\r\n")
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: scrape(port)["one",], range(20)))
        assert answers == [1.0] * 20
        assert threading.active_count() <= before + 1  # a timer of the last one may not have ended yet


def test_a_collector_that_fails_is_an_error_of_this_scrape_only() -> None:
    """The scraper gets an error, and the next scrape is another one."""
    collector = One()
    with serve_metrics("127.0.0.1", 0, collector) as port:
        collector.value = None
        with pytest.raises(HTTPError, match="500"):
            scrape(port)
        collector.value = 3.0
        assert scrape(port)["one",] == 3.0
