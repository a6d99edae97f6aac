"""The routes of `asr-serve`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect, Request

from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.looking import LookChoice
from asr_runtime.machine import package_version
from asr_runtime.records import SummaryRecord
from asr_runtime.reports.guard import Guard
from asr_runtime.serve.api_page import api_page
from asr_runtime.serve.browser_demo import BrowserDemo
from asr_runtime.serve.figures import server_figures
from asr_runtime.serve.limits import RefusedError
from asr_runtime.serve.screener import Job, MapRecord, Screener, Wishes
from asr_runtime.serve.uploads import Budget, read_uploads

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"
_FILES = {"/": "index.html"} | {
    f"/{name}": name for name in ("style.css", "app.js", "cards.js", "evidence.js", "exports.js")
}
_JSONL = "application/x-ndjson"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "description": "The bytes of one file, or a multipart form with any number of files. Other fields are ignored.",
    "required": True,
    "content": {
        "application/octet-stream": _BINARY,
        "image/*": _BINARY,
        "video/*": _BINARY,
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
    },
}
_EXAMPLE = {
    "records": [{"type": "image", "source": "photo.jpg", "probability": 0.0312, "verdict": "real"}],
    "summary": {"type": "summary", "read": 1, "scored": 1, "failed": 0},
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The records of asr-screen. A file that cannot be scored is a record of type `error`.",
        "content": {
            "application/json": {"example": _EXAMPLE},
            _JSONL: {"schema": {"type": "string"}, "example": json.dumps(_EXAMPLE["records"]) + "\n"},
        },
    },
    400: {"description": "No file in the body, or no valid form."},
    401: {"description": "The token is missing or wrong."},
    408: {"description": "The body came too slowly."},
    413: {"description": "The body is too long, or holds too many files."},
    422: {"description": "A parameter is not valid."},
    429: {"description": "The server is busy; the header Retry-After says for how many seconds."},
}


def make_app(
    screener: Screener,
    *,
    token: str | None = None,
    hosts: Collection[str] | None = None,
    browser_demo: Path | None = None,
) -> Guard:
    """Make the ASGI application.

    Args:
        screener: scores the uploads; it is started and closed with the application.
        token: that clients must show; None: no token is asked for.
        hosts: names beside those of this machine that the Host header may have; None: any.
        browser_demo: folder of the built browser demo, served at `/browser-demo/`; None: it is not offered.

    Raises:
        DependencyError: prometheus-client is not installed.
        ConfigurationError: the folder is not a built browser demo.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        screener.start()
        yield
        screener.close()

    app = FastAPI(
        title="asr-serve",
        version=package_version("asrnet-edge") or "unknown",
        description="Tell real photographs from AI-generated pictures. Nothing that is sent is stored.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from the internet
        redoc_url=None,
    )
    _add_errors(app)
    _add_api(app, screener, has_demo=browser_demo is not None)
    _add_state(app, screener)
    _add_page(app)
    if browser_demo is not None:
        app.mount("/browser-demo", BrowserDemo(browser_demo))
    return Guard(
        app,
        token,
        cookie="asr_serve",
        hosts=hosts,
        host_advice="name it with asr-serve --allow-host",
        open_paths={"/healthz", "/readyz"},
    )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> Response:
        headers = None if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return JSONResponse({"error": str(error)}, error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = (f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        return JSONResponse({"error": "; ".join(problems)}, 422)

    @app.exception_handler(ConfigurationError)
    async def impossible(_: Request, error: ConfigurationError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # no one reads it


def _add_api(app: FastAPI, screener: Screener, *, has_demo: bool) -> None:
    limits = screener.limits
    budget = Budget(limits)
    figures, requests, seconds = server_figures(screener, budget)

    @app.post("/v1/screen", responses=_RESPONSES, openapi_extra={"requestBody": _BODY}, response_class=Response)
    async def screen(
        request: Request,
        name: Annotated[str, Query(max_length=1000, description="Name of the file, if the body is one.")] = "upload",
        fps: Annotated[
            float | None, Query(gt=0, le=1000, description="Frames to score per second of video; default: all.")
        ] = None,
        look: Annotated[LookChoice, Query(description="The centre of each picture, or windows all over it.")] = "auto",
        windows: Annotated[bool, Query(description="Records carry the windows that were looked at.")] = False,
        most: Annotated[
            int | None,
            Query(
                alias="map", ge=1, le=400, description="Add a record `map` for images, of at most this many windows."
            ),
        ] = None,
        claims: Annotated[bool, Query(description="Records carry what the file says about itself.")] = False,
        form: Annotated[
            Literal["json", "jsonl"] | None,
            Query(alias="format", description="One JSON object, or JSON lines as they come; default: by Accept."),
        ] = None,
    ) -> Response:
        """Score images and videos: the probability that each was generated by AI.

        JSON lines are sent as they come: of a video every frame, then segments and the verdict of the whole video.
        """
        try:
            screener.check_room()
            uploads = await read_uploads(request, name, limits, budget)
            job = screener.submit(uploads, Wishes(fps, look, windows, most, claims))
        except RefusedError as error:
            requests.labels(error.status).inc()
            raise
        requests.labels(200).inc()
        records = _observed(job)
        if form == "jsonl" or (form is None and _JSONL in request.headers.get("accept", "")):
            return StreamingResponse(_lines(records), media_type=_JSONL)
        return StreamingResponse(_object(records), media_type="application/json")

    async def _observed(job: Job) -> AsyncGenerator[dict[str, Any], None]:
        started = time.monotonic()
        async with contextlib.aclosing(job.records()) as records:
            async for record in records:
                if not isinstance(record, MapRecord):
                    figures.observe(record)
                if isinstance(record, SummaryRecord):
                    seconds.observe(time.monotonic() - started)
                yield record.to_dict()

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return figures for Prometheus."""
        body, content_type = figures.page()
        return Response(body, headers={"Content-Type": content_type})

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Return the model's card (how it was made and tested, how it decides) and what the server offers."""
        detector = screener.detector
        return {
            "name": detector.name,
            "sha256": detector.sha256,
            "provider": detector.provider,
            "reads_claims": screener.reads_claims,
            "browser_demo": has_demo,
            "card": asdict(detector.card),
        }


async def _lines(records: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(records):
        async for record in records:
            yield json.dumps(record, allow_nan=False).encode() + b"\n"


async def _object(records: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[bytes]:
    """Send one object, at the end; as a stream, so that the work ends when the client leaves."""
    async with contextlib.aclosing(records):
        every = [record async for record in records]
    yield json.dumps({"records": every[:-1], "summary": every[-1]}, allow_nan=False).encode() + b"\n"


def _add_state(app: FastAPI, screener: Screener) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "Not ready; the answer says why."}})
    async def readyz() -> JSONResponse:
        """Say whether every worker is ready and the queue has room."""
        reasons = []
        if screener.ready_workers < screener.limits.workers:
            reasons.append(f"{screener.ready_workers} of {screener.limits.workers} workers are ready")
        try:
            screener.check_room()
        except RefusedError as error:
            reasons.append(str(error))
        return JSONResponse(
            {"status": "not ready" if reasons else "ready", "reasons": reasons}, 503 if reasons else 200
        )


def _add_page(app: FastAPI) -> None:
    for path, file in _FILES.items():
        app.add_api_route(path, _file_route(_PAGE / file), include_in_schema=False, methods=["GET", "HEAD"])

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(api_page(app.openapi()))


def _file_route(path: Path) -> Any:
    async def send() -> Response:
        return FileResponse(path)

    return send
