"""Cameras on loopback whose pictures show the wall clock, all of them real servers: RTSP, MJPEG, HLS."""

from __future__ import annotations

import functools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from http_login import is_let_in, question
from live_samples import free_port, serving, until
from numpy.typing import NDArray
from runtime_samples import encoded, read_stamp, stamped

_SYSTEM_PYTHON = "/usr/bin/python3"  # has the bindings of GStreamer, which no package index has
_WITH_TEST = ("setpriv", "--pdeathsig", "KILL")  # ends with the process of the tests, however that ends


def clock_picture(seconds: float) -> NDArray[np.uint8]:
    """A picture, 160 x 128, of a Unix time: milliseconds, modulo 2**20."""
    stamp = int(seconds * 1000)
    return np.vstack([stamped(stamp & 1023), stamped(stamp >> 10 & 1023)])


def age_of(image: NDArray[np.uint8]) -> float:
    """Seconds since a picture was taken, by the clock that it shows."""
    stamp = read_stamp(image[:64]) | read_stamp(image[64:]) << 10
    return ((int(time.time() * 1000) - stamp) % (1 << 20)) / 1000


def with_login(url: str, user: str, password: str) -> str:
    """Put a login, as it is, into a URL."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{user}:{password}@{rest}"


@functools.cache
def _why_no_rtsp() -> str:
    code = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not all(map(shutil.which, (_SYSTEM_PYTHON, "setpriv"))):
        return "needs Debian's python3 and setpriv"
    done = subprocess.run([_SYSTEM_PYTHON, "-c", code], capture_output=True, timeout=30, check=False)
    return "needs GStreamer's RTSP server with its Python bindings: debian-packages.txt" if done.returncode else ""


class RtspCamera:
    """An RTSP camera in a separate process; a test that needs it is skipped where GStreamer is missing."""

    def __init__(self, rate: int = 25, login: tuple[str, str] | None = None) -> None:
        if why := _why_no_rtsp():
            pytest.skip(why)
        self._rate, self._login, self._port = rate, login or (), free_port()
        self.url = f"rtsp://127.0.0.1:{self._port}/camera"

    def __enter__(self) -> Self:
        self.restart()
        return self

    def __exit__(self, *reason: object) -> None:
        self.kill()

    def restart(self) -> None:
        """Start on the same port; returns once it listens."""
        script = Path(__file__).with_name("rtsp_server.py")
        command = [*_WITH_TEST, _SYSTEM_PYTHON, script, str(self._port), str(self._rate), *self._login]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def stop(self) -> None:
        """Hang: connections stay open, and nothing is sent."""
        self._process.send_signal(SIGSTOP)

    def cont(self) -> None:
        self._process.send_signal(SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    camera: MjpegCamera

    def do_GET(self) -> None:
        self.close_connection = True
        with suppress(OSError):  # the other side has gone
            self.camera._answer(self)

    def log_message(self, *arguments: Any) -> None:
        pass


class MjpegCamera:
    """An HTTP camera, `multipart/x-mixed-replace`, that can show every fault; its behaviour can be changed at any time.

    Attributes:
        answer: "stream", "silent" (a connection and nothing more), "html", a status, or a URL (a redirect there).
        rate: pictures a second.
        lengths: the parts say their `Content-Length`.
        stalled: connections stay open, and nothing is sent.
        garbage: how many of the next parts hold no picture.
        sent: Unix times at which pictures went out.
        visits: requests so far.
    """

    def __init__(
        self,
        answer: str | int = "stream",
        *,
        rate: float = 25,
        lengths: bool = True,
        login: tuple[str, str] | None = None,
        scheme: str = "Basic",
    ) -> None:
        self.answer, self.rate, self.lengths = answer, rate, lengths
        self.stalled, self.garbage, self.visits = False, 0, 0
        self.sent: list[float] = []
        self._login, self._scheme = login, scheme
        self._round = 0  # connections of an earlier round end
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._serving = serving(type("Handler", (_Handler,), {"camera": self}))
        self.url = self._serving.__enter__() + "/camera"
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._serving.__exit__(None, None, None)

    def drop(self) -> None:
        """End all connections; new ones are accepted."""
        self._round += 1

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.visits += 1
        if self.answer == "silent":
            self._over.wait(60)
        elif isinstance(self.answer, int):
            request.send_error(self.answer)
        elif self.answer == "html":
            self._reply(request, 200, "Content-Type", "text/html", b"<html><body>Please log in</body></html>")
        elif self.answer != "stream":
            self._reply(request, 302, "Location", self.answer)
        elif self._login and not is_let_in(request.headers.get("Authorization", ""), *self._login, self._scheme):
            self._reply(request, 401, "WWW-Authenticate", question(self._scheme))
        else:
            self._stream(request)

    def _reply(self, request: BaseHTTPRequestHandler, status: int, name: str, value: str, body: bytes = b"") -> None:
        request.send_response(status)
        request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _stream(self, request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=--picture")
        request.end_headers()
        now, due = self._round, time.monotonic()
        while now == self._round and not self._over.is_set():
            if not self.stalled:
                request.wfile.write(self._part())
                self.sent.append(time.time())
            due = max(due + 1 / self.rate, time.monotonic() - 1)
            self._over.wait(max(0, due - time.monotonic()))

    def _part(self) -> bytes:
        picture = encoded(clock_picture(time.time()), ".jpg")
        if self.garbage:
            self.garbage -= 1
            picture = b"\xff\xd8 no picture at all \xff\xd9"
        length = f"Content-Length: {len(picture)}\r\n" if self.lengths else ""
        return f"--picture\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + picture + b"\r\n"


@contextmanager
def silent_host() -> Iterator[str]:
    """A host and port where connections are made and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def served_folder(folder: Path, away: str = "") -> Iterator[str]:
    """Serve the files of a folder over HTTP; gives the URL of the folder. `/away.ts` redirects to `away`."""

    class Quiet(SimpleHTTPRequestHandler):
        extensions_map: ClassVar[dict[str, str]] = {
            "": "application/octet-stream",
            ".m3u8": "application/vnd.apple.mpegurl",
            ".ts": "video/mp2t",
        }

        def do_GET(self) -> None:
            if self.path != "/away.ts":
                super().do_GET()
                return
            self.send_response(302)
            self.send_header("Location", away)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(partial(Quiet, directory=str(folder))) as url:
        yield url


@contextmanager
def hls_camera(folder: Path, rate: int = 10) -> Iterator[str]:
    """A live HLS playlist that Debian's ffmpeg writes, segments of one second; gives its URL."""
    if not all(map(shutil.which, ("ffmpeg", "setpriv"))):
        pytest.skip("needs Debian's ffmpeg and setpriv")
    folder.mkdir()
    pictures = ("-re", "-f", "lavfi", "-i", f"testsrc=size=160x128:rate={rate}")
    codec = ("-c:v", "libx264", "-preset", "ultrafast", "-g", str(rate), "-pix_fmt", "yuv420p", "-threads", "1")
    playlist = ("-f", "hls", "-hls_time", "1", "-hls_list_size", "4", "-hls_flags", "delete_segments", "live.m3u8")
    command = [*_WITH_TEST, "ffmpeg", "-nostdin", "-v", "error", *pictures, *codec, *playlist]
    with served_folder(folder) as url, subprocess.Popen(command, cwd=folder) as process:
        try:
            until((folder / "live.m3u8").exists)
            yield f"{url}/live.m3u8"
        finally:
            process.kill()
