"""Which requests a page or API of this machine answers, and what a browser may do with the answers."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Collection
from functools import cache
from http.cookies import CookieError, SimpleCookie
from importlib import resources
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asr_runtime.reports.access import is_loopback

__all__ = ["Guard"]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_LOGIN_FILES = {
    "/login": ("login.html", "text/html; charset=utf-8"),
    "/login.css": ("login.css", "text/css; charset=utf-8"),
}
_LONGEST_LOGIN = 4096  # bytes
_LOGIN_SECONDS = 10.0


class Guard:
    """ASGI middleware in front of everything.

    A request is refused if its Host header names another machine (DNS rebinding: a page of the internet whose name was
    pointed at this machine), if a page of another origin sends it, or if it lacks the token. Every answer forbids
    the browser to load anything from elsewhere.

    Args:
        app: what is guarded.
        token: that clients must send as `Authorization: Bearer TOKEN`; browsers get a cookie for it at `/login`, which
            the guard serves. None: no token is asked for.
        cookie: name of the cookie. Servers on other ports of one machine share their cookies, so each needs its own.
        hosts: names beside this machine's that the Host header may have; None: any.
        host_advice: what to do where another name was used.
        open_paths: answered without a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        *,
        cookie: str,
        hosts: Collection[str] | None,
        host_advice: str,
        open_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._token = token
        self._cookie = cookie
        self._hosts = None if hosts is None else {host.lower() for host in hosts}
        self._host_advice = host_advice
        self._open_paths = {*open_paths, *_LOGIN_FILES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        answer = self._refusal(request)
        if answer is None and scope["path"] in _LOGIN_FILES:
            is_form = scope["path"] == "/login" and scope["method"] == "POST"
            answer = await self._login(request) if is_form else _login_file(scope["path"])
        await (answer or self._app)(scope, receive, guarded_send)

    def _refusal(self, request: Request) -> Response | None:
        headers = request.headers
        if not self._is_known_host(headers):
            return _error(
                421, f"the Host header {headers.get('host', '')!r} is not a name of this server; {self._host_advice}"
            )
        if not _is_same_origin(headers):
            return _error(403, "a page of another origin sent this request")
        if self._token is None or request.url.path in self._open_paths or self._has_token(headers):
            return None
        if request.method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        refusal = _error(401, "a token is needed; send the header 'Authorization: Bearer TOKEN'")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def _is_known_host(self, headers: Headers) -> bool:
        if self._hosts is None:
            return True
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        return is_loopback(name) or name in self._hosts

    def _has_token(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return hmac.compare_digest(shown.strip().encode(), self._token.encode())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie_value().encode())

    def _cookie_value(self) -> str:
        """Return the value of the cookie: it proves that the browser was given the token, and does not contain it."""
        assert self._token is not None
        return hmac.new(self._token.encode(), self._cookie.encode(), "sha256").hexdigest()

    async def _login(self, request: Request) -> Response:
        body = b""
        try:
            async with asyncio.timeout(_LOGIN_SECONDS):
                async for part in request.stream():
                    body += part
                    if len(body) > _LONGEST_LOGIN:
                        return _error(413, f"expected a form with the token, {_LONGEST_LOGIN} bytes at most")
        except TimeoutError:
            return _error(408, "the token did not come in time")
        shown = parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()
        if self._token is None or not hmac.compare_digest(shown.encode(), self._token.encode()):
            return RedirectResponse("/login#wrong", 303)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, self._cookie_value(), httponly=True, samesite="strict")
        return answer


@cache
def _login_body(name: str) -> bytes:
    return (resources.files("asr_runtime.reports") / "pages" / name).read_bytes()


def _login_file(path: str) -> Response:
    name, content_type = _LOGIN_FILES[path]
    return Response(_login_body(name), headers={"Content-Type": content_type})


def _is_same_origin(headers: Headers) -> bool:
    """Compare what a browser says of the page that sends a request with the server's own name."""
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    return headers.get("sec-fetch-site", "none") != "cross-site" or headers.get("sec-fetch-mode") == "navigate"


def _error(status: int, message: str) -> Response:
    return Response(json.dumps({"error": message}) + "\n", status, media_type="application/json")
