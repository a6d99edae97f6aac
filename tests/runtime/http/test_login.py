"""Answers to a server that asks for a password, against the examples of the standards."""

from __future__ import annotations

import doctest
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asr_runtime.http.login
from asr_runtime.http.login import Login, UnsupportedLoginError, parse_challenges

_NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
_RFC7616 = f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm=%s, nonce="{_NONCE}", opaque="FQhe"'


def _fields(header: str) -> dict[str, str]:
    return parse_challenges([header])[0].fields


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_a_digest_is_that_of_the_standard(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client_nonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    monkeypatch.setattr("secrets.token_hex", lambda count: client_nonce)
    login = Login("Mufasa", "Circle of Life")
    assert login.accept([_RFC7616 % algorithm])
    sent = _fields(login.authorization("GET", "/dir/index.html") or "")
    assert sent["response"] == response
    assert sent.items() >= {"qop": "auth", "nc": "00000001", "opaque": "FQhe", "algorithm": algorithm}.items()


def test_a_digest_from_before_the_quality_of_protection_is_that_of_the_standard() -> None:
    login = Login("Mufasa", "Circle Of Life")
    login.accept(['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'])
    sent = _fields(login.authorization("GET", "/dir/index.html") or "")
    assert sent["response"] == "670fd8c2df070c60b045671b8b24ff02"
    assert "qop" not in sent


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        (["Digest algorithm=MD5", "Digest algorithm=SHA-256"], "SHA-256"),
        (["Digest algorithm=SHA-256, Digest algorithm=MD5, Basic realm=x"], "SHA-256"),
        (["Basic realm=x", "Digest algorithm=MD5-sess"], "MD5-sess"),
        (["Digest algorithm=sha-256-SESS, qop=auth-int"], "sha-256-SESS"),
        (["Digest algorithm=SHA-3, nonce=a", "Digest nonce=b, algorithm=MD5"], "MD5"),
        (["Digest qop=other", "Basic realm=x"], None),
        (["Negotiate", "Basic realm=x"], None),
        ([], None),
    ],
)
def test_the_strongest_way_that_is_known_is_chosen(offers: list[str], chosen: str | None) -> None:
    login = Login("me", "secret")
    assert login.accept(offers)
    header = login.authorization("GET", "/") or ""
    assert _fields(header).get("algorithm") == chosen if chosen else header == "Basic bWU6c2VjcmV0"


def test_a_kind_of_login_that_is_not_known_is_named() -> None:
    with pytest.raises(UnsupportedLoginError, match=r"digest SHA-512-2, negotiate; known are Basic and Digest"):
        Login("me", "secret").accept(["Digest algorithm=SHA-512-2", "Negotiate"])


def test_basic_is_tried_once() -> None:
    login = Login("me", "secret", basic_first=True)
    assert login.authorization("POST", "/") == "Basic bWU6c2VjcmV0"
    assert not login.accept(["Basic realm=x"])
    assert login.accept(["Digest nonce=a"])


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Login("me", "secret"))


@settings(max_examples=20)
@given(st.text('a="\\, \t=', max_size=60).map(lambda piece: (piece * 2000)[:65536]))
def test_no_header_takes_long_to_read(header: str) -> None:
    started = time.perf_counter()
    parse_challenges([header] * 16)
    assert time.perf_counter() - started < 2


def test_the_examples_in_the_docstrings_are_right() -> None:
    assert doctest.testmod(asr_runtime.http.login).failed == 0
