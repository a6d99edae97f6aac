"""A running server, in this process, with the limits that users have or smaller ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_samples import Client, Serve

from asr_runtime import Detector
from asr_runtime.provenance.reader import ClaimReader
from asr_runtime.reports.http_server import listen
from asr_runtime.serve.limits import Limits
from asr_runtime.serve.screener import Screener
from asr_runtime.serve.server import Server


@pytest.fixture(scope="session")
def serve(model_bytes: bytes) -> Serve:
    @contextlib.contextmanager
    def run(
        token: str | None = None,
        model: bytes | str = model_bytes,
        deadline: float = 10.0,
        make_reader: Callable[[], ClaimReader] | None = None,
        browser_demo: Path | None = None,
        **limits: Any,
    ) -> Iterator[Client]:
        ready: list[str] = []
        is_ready = threading.Event()

        def announce(address: str) -> None:
            ready.append(address)
            is_ready.set()

        def make_detector() -> Detector:
            return Detector(model, device="cpu", threads=1, deadline=deadline)

        screener = Screener(make_detector, Limits(**{"workers": 2, **limits}), make_reader)
        with contextlib.closing(listen("127.0.0.1:0")) as listening:
            server = Server(screener, listening, token=token, browser_demo=browser_demo, announce=announce)
            thread = threading.Thread(target=server.run)
            thread.start()
            try:
                assert is_ready.wait(20)
                yield Client(ready[0], screener)
            finally:
                server.should_exit = True
                thread.join(20)
                assert not thread.is_alive()

    return run


@pytest.fixture(scope="session")
def server(serve: Serve) -> Iterator[Client]:
    """A server with the limits that users have."""
    with serve() as client:
        yield client


@pytest.fixture
def photo(examples: Path) -> bytes:
    return (examples / "real" / "cat.png").read_bytes()
