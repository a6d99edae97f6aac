"""What Prometheus and a health check read from a running screening, and what no client can do to it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from live_samples import frame, free_port, state
from prometheus_client.parser import text_string_to_metric_families

from asr_runtime.errors import ConfigurationError, DependencyError, OutputError
from asr_runtime.records import ErrorRecord, ImageRecord, SegmentRecord, VideoRecord
from asr_runtime.reports.alerts import Alerts
from asr_runtime.reports.prometheus import MetricsServer


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with_door = MetricsServer("0", sources=["door"], fresh=0.3)
    yield with_door
    with_door.close()


def samples(server: MetricsServer) -> dict[tuple[str, ...], float]:
    """All samples: (name, label values in the order of the labels' names) -> value."""
    with urlopen(f"http://{server.address}/metrics", timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = answer.read().decode()
    values = {}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("asr_")
        assert family.documentation
        for sample in family.samples:
            values[(sample.name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return values


def health(server: MetricsServer) -> tuple[int, dict[str, Any]]:
    try:
        with urlopen(f"http://{server.address}/healthz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_metrics_count_what_a_live_source_gave(server: MetricsServer) -> None:
    for new in ("connecting", "live", "stalled", "live", "lost", "connecting", "live"):
        server.observe(state("door", new))
    for number, age in enumerate((0.03, 0.3, 3.0)):
        server.observe(frame("door", "ai" if number else "real", number, age=age, dropped=2))
    server.observe(ErrorRecord("door", "InferenceError", "door: not a number"))
    values = samples(server)
    assert values["asr_frames_total", "door", "ai"] == 2
    assert values["asr_frames_total", "door", "real"] == 1
    assert values["asr_errors_total", "InferenceError", "door"] == 1
    assert values["asr_dropped_frames_total", "door"] == 6
    assert values["asr_reconnects_total", "door"] == 2
    assert values["asr_source_state", "door", "live"] == 1
    assert values["asr_source_state", "door", "lost"] == 0
    assert values["asr_frame_age_seconds_bucket", "0.5", "door"] == 2
    assert values["asr_frame_age_seconds_count", "door"] == 3
    assert values["asr_frame_age_seconds_sum", "door"] == pytest.approx(3.33)
    assert values["asr_probability", "door"] == values["asr_smoothed_probability", "door"] == 0.75
    assert abs(values["asr_last_result_timestamp_seconds", "door"] - time.time()) < 30


def test_a_source_has_its_counters_from_the_start(server: MetricsServer) -> None:
    values = samples(server)
    assert values["asr_reconnects_total", "door"] == values["asr_dropped_frames_total", "door"] == 0


def test_files_share_one_label_so_that_a_large_folder_does_not_fill_the_memory(server: MetricsServer) -> None:
    server.observe(ImageRecord("0.png", 0.9, "ai"))
    before = len(samples(server))
    for number in range(200):
        server.observe(ImageRecord(f"{number}.png", 0.9, "ai"))
        server.observe(frame(f"{number}.mp4", "ai"))
        server.observe(VideoRecord(f"{number}.mp4", 0.9, "ai", 0.9, 1, 0.0))
        server.observe(SegmentRecord(f"{number}.mp4", 0, 1, "ai", 0.9, 0.9, 1))
    values = samples(server)
    assert values["asr_frames_total", "files", "ai"] == 401
    assert len(values) <= before + 1, "the smoothed probability of the files"


def test_alerts_that_did_not_arrive_are_counted() -> None:
    place = f"http://127.0.0.1:{free_port()}/"
    alerts = Alerts([place], warn=lambda line: None)
    server = MetricsServer("0", alerts=alerts)
    alerts.observe(ImageRecord("a.png", 0.9, "ai"))
    alerts.close(0.3)
    assert samples(server)["asr_alerts_undelivered_total", place] == 1
    server.close()


def test_health_follows_the_states_and_the_results(server: MetricsServer) -> None:
    def reasons() -> list[str]:
        status, report = health(server)
        assert (status, report["status"]) == ((503, "failing") if report["reasons"] else (200, "ok"))
        return report["reasons"]

    assert reasons() == ["door: connecting (nothing was reported yet)"]
    server.observe(state("door", "live"))
    assert reasons() == []
    server.observe(state("yard", "connecting"))
    assert reasons() == ["yard: connecting"]
    server.observe(state("yard", "live"))
    assert reasons() == []
    server.observe(state("yard", "lost", "connection refused", given_up=True))
    assert reasons() == ["yard: lost (connection refused; given up)"]
    server.observe(state("yard", "live"))
    time.sleep(0.4)
    server.observe(frame("yard", "real", age=0.1))
    (reason,) = reasons()
    assert reason.startswith("door: live, but no result for 0.")
    assert reason.endswith("expected one every 0.3 s")
    server.observe(frame("door", "real", age=0.1))
    assert reasons() == []
    _, report = health(server)
    assert report["sources"]["door"]["state"] == "live"
    assert report["sources"]["door"]["result_age"] < 0.3


def test_a_run_over_files_is_healthy() -> None:
    server = MetricsServer("127.0.0.1:0")
    server.observe(frame("clip.mp4", "ai"))
    assert health(server) == (200, {"status": "ok", "reasons": [], "sources": {}})
    server.close()


# The server


def ask(server: MetricsServer, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(server.address, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, dict(answer.headers)


def test_only_get_and_head_are_answered(server: MetricsServer) -> None:
    status, body, headers = ask(server, "GET", "/metrics?x=y")
    assert status == 200
    assert len(body) == int(headers["Content-Length"])
    assert ask(server, "HEAD", "/healthz")[:2] == (503, b"")
    for method in ("POST", "DELETE", "OPTIONS", "get"):
        status, _, headers = ask(server, method, "/metrics")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert ask(server, "GET", "/")[:2] == (404, b"expected /metrics or /healthz\n")
    assert ask(server, "GET", "/../etc/passwd")[0] == 404


@pytest.mark.parametrize("nonsense", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET / SPDY/3\r\n\r\n"])
def test_what_is_not_http_is_reported(server: MetricsServer, nonsense: bytes) -> None:
    with connect(server) as client:
        client.sendall(nonsense)
        assert client.recv(100).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def connect(server: MetricsServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), 8)


def send(client: socket.socket, data: bytes, times: int, pause: float = 0.0) -> None:
    for _ in range(times):
        client.sendall(data)
        time.sleep(pause)


def test_silent_slow_and_endless_clients_are_cut_while_others_are_served(server: MetricsServer) -> None:
    threads = threading.active_count()
    silent = [connect(server) for _ in range(200)]
    slow = connect(server)
    started = time.monotonic()
    slow.sendall(b"GET /metrics HTTP/1.1\r\n")
    endless = connect(server)
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        send(endless, b"x" * 1000, 10_000)
    assert ask(server, "GET", "/metrics")[0] == 200, "more than all places are taken, and one is made"
    assert threading.active_count() == threads
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        send(slow, b"x", 40, pause=0.2)
    assert 3 < time.monotonic() - started < 8
    for client in (*silent, slow, endless):
        client.close()
    assert ask(server, "GET", "/metrics")[0] == 200


def test_a_client_that_goes_in_the_middle_of_an_answer_harms_nobody(server: MetricsServer) -> None:
    for _ in range(50):
        with connect(server) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert ask(server, "GET", "/metrics")[0] == 200


def test_a_port_in_use_is_named(server: MetricsServer) -> None:
    with pytest.raises(
        OutputError, match=rf"address {server.address}: cannot be listened on \(Address already in use\)"
    ):
        MetricsServer(server.address)


def test_closing_frees_the_port() -> None:
    port = str(free_port())
    first = MetricsServer(port)
    assert first.address == f"127.0.0.1:{port}", "a port alone is not open to other machines"
    first.close()
    first.close()
    MetricsServer(port).close()


def test_ipv6_addresses_are_written_in_brackets() -> None:
    try:
        server = MetricsServer("[::1]:0")
    except OutputError as error:
        pytest.skip(str(error))
    assert server.address.startswith("[::1]:")
    assert health(server)[0] == 200
    server.close()


@pytest.mark.parametrize("address", ["", "host", "127.0.0.1:", ":9184", "127.0.0.1:65536", "127.0.0.1:-1", "\u0661"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected \[HOST:\]PORT"):
        MetricsServer(address)


def test_prometheus_client_is_imported_for_a_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, asr_runtime.reports.prometheus; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(DependencyError, match=r"asrnet-edge\[live\]"):
        MetricsServer("0")
