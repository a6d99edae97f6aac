"""The browser demo, a static folder that `asr-serve` offers beside its page."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from asr_runtime.errors import ConfigurationError

__all__ = ["BrowserDemo"]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'unsafe-inline'",
        "img-src blob: data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Embedder-Policy": "require-corp",  # with the opener policy of every answer: WebAssembly has threads
    "Cache-Control": "no-cache",
}
_PARTS = ("index.html", "service-worker.js", "model.json", "model.onnx")


class BrowserDemo(StaticFiles):
    """Serves the folder that `runtime/embed/browser/build.py` writes.

    Args:
        folder: the built demo. Links that lead out of it are not followed.

    Raises:
        ConfigurationError: the folder is not a built demo.
    """

    def __init__(self, folder: Path) -> None:
        missing = [name for name in _PARTS if not (folder / name).is_file()]
        if missing:
            raise ConfigurationError(
                f"--browser-demo {folder}: expected a built browser demo, but {missing[0]} is missing; "
                "`make browser-demo` builds one in build/browser-demo"
            )
        super().__init__(directory=folder, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with the headers that the demo needs."""
        response = await super().get_response(path, scope)
        for name, value in _HEADERS.items():
            response.headers[name] = value
        return response
