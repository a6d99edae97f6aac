"""Runs the application in uvicorn: one process, one address, and an end without error messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import uvicorn

from asr_runtime.inference.detector import Detector
from asr_runtime.interrupt import handled_signals
from asr_runtime.provenance.reader import ClaimReader
from asr_runtime.reports.http_server import listen
from asr_runtime.serve.app import make_app
from asr_runtime.serve.limits import Limits
from asr_runtime.serve.protocol import patient_protocol
from asr_runtime.serve.screener import Screener

__all__ = ["Server", "run_server"]

_OPEN_FILES = 8192  # connections, uploads and pipes; many systems allow 1024 unless they are asked
_LAST_ANSWERS = 3  # seconds that open requests get when the server ends


class Server(uvicorn.Server):
    """uvicorn with the application.

    Args:
        screener: scores the uploads.
        listening: a listening socket; the caller closes it.
        token: that clients must show; None: no token is asked for.
        hosts: see `app.make_app`.
        browser_demo: see `app.make_app`.
        announce: called with `HOST:PORT` once requests are taken.

    Attributes:
        should_exit: set it to end `run`.
    """

    def __init__(
        self,
        screener: Screener,
        listening: socket.socket,
        *,
        token: str | None = None,
        hosts: Collection[str] | None = (),
        browser_demo: Path | None = None,
        announce: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                make_app(screener, token=token, hosts=hosts, browser_demo=browser_demo),
                http=patient_protocol(screener.limits.patience),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )
        self._listening = listening
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        if self.started:
            host, port = self._listening.getsockname()[:2]
            self._announce(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: uvicorn raises them again at its end, and the command has its own exit codes."""
        yield

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set."""
        asyncio.run(self.serve(sockets=sockets or [self._listening]))


def run_server(
    make_detector: Callable[[], Detector],
    limits: Limits,
    address: str,
    *,
    make_reader: Callable[[], ClaimReader] | None,
    token: str | None,
    hosts: Collection[str] | None,
    browser_demo: Path | None,
    announce: Callable[[str], None],
) -> int:
    """Serve until a signal comes.

    Args:
        make_detector: makes the model of one worker.
        limits: of the server.
        address: `HOST:PORT`; port 0 is a free one.
        make_reader: makes the reader of claims of one worker; None: no claims are read.
        token: that clients must show; None: no token is asked for.
        hosts: see `app.make_app`.
        browser_demo: see `app.make_app`.
        announce: called with `HOST:PORT` once requests are taken.

    Returns:
        The exit code, 128 + the number of the signal.

    Raises:
        OutputError: the address cannot be listened on.
        ConfigurationError: `browser_demo` is not a built browser demo.
        AsrError: whatever making the model raises.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # only the client needs to know what it did wrong
    _allow_files()
    with contextlib.closing(listen(address)) as listening:
        screener = Screener(make_detector, limits, make_reader)
        server = Server(screener, listening, token=token, hosts=hosts, browser_demo=browser_demo, announce=announce)
        with _stopped_by_signals(server) as signals:
            server.run()
    return 128 + signals[0] if signals else 1


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _stopped_by_signals(server: Server) -> Iterator[list[int]]:
    """End the server on SIGINT and SIGTERM, which are listed; a second one does not wait for open requests."""
    signals: list[int] = []

    def receive(number: int, _: object) -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        signals.append(number)

    with handled_signals(receive):
        yield signals
