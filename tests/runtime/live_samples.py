"""Records of a live run, and real servers on this machine: HTTP, a webhook for alerts, an MQTT broker."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord, SourceState, StateRecord

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs the broker mosquitto (Debian: mosquitto)")


def frame(
    source: str,
    steady: Verdict,
    number: int = 0,
    seconds: float = 0.0,
    age: float | None = None,
    probability: float = 0.75,
    dropped: int = 0,
) -> FrameRecord:
    return FrameRecord(source, number, seconds, probability, steady, probability, steady, age=age, dropped=dropped)


def state(source: str, new: SourceState, detail: str = "", given_up: bool = False) -> StateRecord:
    return StateRecord(source, new, time.time(), detail, given_up=given_up)


def until(is_so: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait until a condition holds that another thread or process brings about."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "the condition did not hold in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64


@contextmanager
def serving(handler: Any) -> Iterator[str]:
    """Serve HTTP while the block runs; gives the URL of the root, without a slash."""
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Receiver:
    """A webhook that keeps what it gets; `plan` says how it answers, request by request, then with 204.

    An answer is a status, a URL (a redirect there), "hang" (none at all) or "drip" (a byte every 0.1 s).
    """

    def __init__(self, *plan: int | str) -> None:
        self.plan = list(plan)
        self.alerts: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.leave = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._answer(self)

            def do_GET(self) -> None:
                receiver._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.place = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def close(self) -> None:
        self.leave.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.paths.append(request.path)
        self.headers.append(dict(request.headers))
        answer = self.plan.pop(0) if self.plan else 204
        if answer == "hang":
            self.leave.wait(20)
        elif answer == "drip":
            while not self.leave.wait(0.1):
                request.wfile.write(b"H")
        elif isinstance(answer, str):
            request.send_response(307)
            request.send_header("Location", answer)
            request.end_headers()
        else:
            if answer < 300:
                self.alerts.append(json.loads(body))
            request.send_response(answer)
            request.end_headers()


@contextmanager
def receiver(*plan: int | str) -> Iterator[Receiver]:
    server = Receiver(*plan)
    try:
        yield server
    finally:
        server.close()


class Broker:
    """mosquitto on a loopback port, with a subscriber to everything; can be stopped and started again."""

    def __init__(self, folder: Path, *, password: tuple[str, str] | None = None, tls: tuple[Path, Path] | None = None):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if password else 'true'}", "user root"]
        if password:
            file = folder / "passwords"
            command = ["mosquitto_passwd", "-b", "-c", file, *password]
            subprocess.run(command, check=True, capture_output=True, timeout=20)
            lines.append(f"password_file {file}")
        if tls:
            lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Subscriber:
    """Reads a topic of a broker, over its restarts."""

    def __init__(self, port: int, topic: str, password: tuple[str, str] | None = None) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.alerts: list[dict[str, Any]] = []
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(0.1, 0.1)
        if password:
            self._client.username_pw_set(*password)
        subscribed = threading.Event()
        self.subscribed = subscribed
        self._client.on_connect = lambda client, *rest: client.subscribe(topic, 1)
        self._client.on_subscribe = lambda *rest: subscribed.set()
        self._client.on_message = lambda client, data, message: self.alerts.append(json.loads(message.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # paho closes its own pair of sockets when the client goes; its callbacks hold this object


@contextmanager
def small_disk(folder: Path, size: str, *, read_only: bool = False) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder.mkdir()
    options = f"size={size}" + (",ro" if read_only else "")
    command = ["mount", "-t", "tmpfs", "-o", options, "asr-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)
