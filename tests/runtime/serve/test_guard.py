"""Who may ask: names of the server, other pages of a browser, the token."""

from __future__ import annotations

import json
from http.cookies import SimpleCookie

import pytest
from serve_samples import Client, Serve

TOKEN = "a-token-for-the-tests-0123456789"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8765", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("127.0.0.2", 200),
        ("photos.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("", 421),
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(server: Client, host: str, status: int) -> None:
    assert server.ask("GET", "/v1/model", headers={"Host": host})[0] == status


def test_pages_of_other_origins_are_refused(server: Client) -> None:
    own = f"http://{server.address}"
    for headers, status in (
        ({"Origin": own}, 400),  # an empty body
        ({"Origin": "http://photos.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": own.replace("http:", "http:") + "0"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 400),
    ):
        assert server.ask("POST", "/v1/screen", b"", headers)[0] == status, headers


def test_every_answer_forbids_outside_resources_and_storing(server: Client) -> None:
    for method, path in (("GET", "/"), ("GET", "/healthz"), ("POST", "/v1/screen"), ("GET", "/nothing")):
        headers = server.ask(method, path)[1]
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "http" not in headers["content-security-policy"], path
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "access-control-allow-origin" not in headers


def test_the_token_opens_the_api_and_nothing_else_does(serve: Serve) -> None:
    with serve(token=TOKEN) as client:
        for shown in (
            None,
            "Bearer",
            "Bearer wrong",
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            "é",
        ):
            headers = {} if shown is None else {"Authorization": shown}
            for path in ("/v1/model", "/metrics", "/docs", "/openapi.json", "/", "/app.js", "/nothing"):
                status, answered, _ = client.ask("GET", path, headers=headers)
                assert (status, answered["www-authenticate"]) == (401, "Bearer"), (shown, path)
        assert client.ask("GET", "/v1/model", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
        assert client.ask("GET", "/healthz")[0] == 200


def test_a_browser_shows_the_token_once_and_keeps_a_cookie_that_does_not_hold_it(serve: Serve) -> None:
    with serve(token=TOKEN) as client:
        status, headers, _ = client.ask("GET", "/", headers={"Accept": "text/html"})
        assert (status, headers["location"]) == (303, "/login")
        assert client.ask("GET", "/login", headers={"Accept": "text/html"})[0] == 200
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        status, headers, _ = client.ask("POST", "/login", b"token=wrong", form)
        assert (status, headers["location"], "set-cookie" in headers) == (303, "/login#wrong", False)
        status, headers, _ = client.ask("POST", "/login", f"token={TOKEN}".encode(), form)
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        (morsel,) = SimpleCookie(cookie).values()
        kept = {"Cookie": f"{morsel.key}={morsel.value}"}
        assert client.ask("GET", "/", headers=kept)[0] == 200
        assert client.ask("GET", "/", headers={"Cookie": f"{morsel.key}={morsel.value[:-1]}"})[0] == 401


def test_a_refusal_says_what_to_do(server: Client) -> None:
    assert "--allow-host" in json.loads(server.ask("GET", "/", headers={"Host": "photos.example"})[2])["error"]
