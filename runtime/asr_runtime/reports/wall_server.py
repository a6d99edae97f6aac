"""The live wall over HTTP: one page, its pictures, and updates pushed as server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

from asr_runtime.errors import ConfigurationError, DependencyError
from asr_runtime.reports.access import is_loopback
from asr_runtime.reports.http_server import listen
from asr_runtime.reports.wall import Wall

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["WallServer"]

_TICK = 0.25  # seconds between updates while something changes; without changes one a second is sent
_LATEST = 1.0
_VIEWERS = 256  # open event streams; a further viewer is answered 503
_START = 10.0  # seconds


class WallServer:
    """Serves a `Wall` from a daemon thread with an event loop: a viewer is a task, not a thread.

    Args:
        wall: what is shown.
        address: `[HOST:]PORT`; without a host 127.0.0.1, and port 0 is a free one.
        token: that viewers must show (`reports.guard.Guard`); None: no token is asked for. An address that other
            machines can reach needs one.

    Attributes:
        url: of the page, without the token.

    Raises:
        ConfigurationError: the address is none, or other machines can reach it and there is no token.
        DependencyError: starlette and uvicorn are not installed.
        OutputError: the address cannot be listened on.
    """

    def __init__(self, wall: Wall, address: str, token: str | None = None) -> None:
        try:
            import uvicorn
        except ImportError:
            raise DependencyError("view: needs the package uvicorn: pip install 'asrnet-edge[serve]'") from None
        self._wall = wall
        self._socket = listen(address)
        host, port = self._socket.getsockname()[:2]
        if token is None and not is_loopback(host):
            self._socket.close()
            raise ConfigurationError(
                f"view {address}: other machines can reach this address; give --token-file FILE, or 127.0.0.1:PORT"
            )
        self.url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        self._update = b""
        self._viewers = 0
        self._tick: asyncio.Event | None = None
        config = uvicorn.Config(
            self._application(token),
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=4 * _VIEWERS,
        )
        self._server = uvicorn.Server(config)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asr-wall", daemon=True)
        self._thread.start()
        self._started.wait(_START)

    def close(self) -> None:
        """Stop serving and free the port; open pages show that the run has ended."""
        self._server.should_exit = True
        self._thread.join(3.0)

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])

    def _application(self, token: str | None) -> Any:
        from starlette.applications import Starlette
        from starlette.routing import Route

        from asr_runtime.reports.guard import Guard

        routes = [
            Route("/", self._page("wall.html", "text/html; charset=utf-8")),
            Route("/wall.css", self._page("wall.css", "text/css; charset=utf-8")),
            Route("/wall.js", self._page("wall.js", "text/javascript; charset=utf-8")),
            Route("/events", self._events),
            Route("/picture/{number:int}", self._picture(self._wall.picture)),
            Route("/flagged/{number:int}", self._picture(self._wall.flagged)),
        ]
        return Guard(
            Starlette(routes=routes, lifespan=self._lifespan),
            token,
            cookie="asr_wall",
            hosts=() if token is None else None,
            host_advice="open the page as http://127.0.0.1 or http://localhost",
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        self._tick = asyncio.Event()
        ticking = asyncio.create_task(self._ticks())
        self._started.set()
        yield
        ticking.cancel()
        self._tick.set()

    async def _ticks(self) -> None:
        """Make one update for all viewers, `_TICK` after the last."""
        loop = asyncio.get_running_loop()
        last, sent = "", 0.0
        while not self._server.should_exit:
            if self._viewers:
                state = self._wall.state()
                versions = json.dumps([(s["version"], s["state"], s["errors"]) for s in state["sources"]])
                changed = f"{versions} {state['flagged_count']} {state['summary'] is not None}"
                if changed != last or loop.time() - sent >= _LATEST - _TICK:
                    last, sent = changed, loop.time()
                    self._publish(b"data: " + json.dumps(state, separators=(",", ":")).encode() + b"\n\n")
            await asyncio.sleep(_TICK)
        self._publish(b"event: end\ndata: {}\n\n")

    def _publish(self, update: bytes) -> None:
        assert self._tick is not None
        self._update = update
        tick, self._tick = self._tick, asyncio.Event()
        tick.set()

    def _page(self, name: str, content_type: str) -> Callable[[Request], Awaitable[Response]]:
        from starlette.responses import Response

        body = (resources.files("asr_runtime.reports") / "pages" / name).read_bytes()

        async def page(_: Request) -> Response:
            return Response(body, 200, {"Content-Type": content_type})

        return page

    def _picture(self, of: Callable[[int], bytes | None]) -> Callable[[Request], Awaitable[Response]]:
        from starlette.responses import PlainTextResponse, Response

        async def picture(request: Request) -> Response:
            jpeg = await asyncio.to_thread(of, request.path_params["number"])
            if jpeg is None:
                return PlainTextResponse("no such picture\n", 404)
            return Response(jpeg, 200, {"Content-Type": "image/jpeg"})

        return picture

    async def _events(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, StreamingResponse

        if self._viewers >= _VIEWERS:
            return PlainTextResponse("too many viewers\n", 503)

        async def updates() -> AsyncIterator[bytes]:
            self._viewers += 1
            try:
                yield b"retry: 1000\n\n"
                while not self._server.should_exit and self._tick is not None:
                    await self._tick.wait()
                    yield self._update
            finally:
                self._viewers -= 1

        return StreamingResponse(updates(), media_type="text/event-stream")
