"""Passwords with any letter: never shown, and opened as they are."""

from __future__ import annotations

import doctest
import time
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import asr_runtime.redact
from asr_runtime.redact import percent_encoded, redact

# Words that are in no host, path or message, between letters that have a meaning in URLs.
_WORDS = ("s3cret", "Hidden", "Locked", "Buried", "Sunken")
_PASSWORDS = st.lists(
    st.tuples(st.sampled_from(_WORDS), st.text("@/#?:%&=+ .,;'\"\\[]<>|!$", max_size=3)), min_size=1, max_size=5
).map(lambda pieces: "".join(word + letters for word, letters in pieces))
_USERS = st.sampled_from(["admin", "us er", "user@example.com", "a/b", "1"])
_SCHEMES = st.sampled_from(["rtsp", "http", "https", "mqtt"])
_HOSTS = st.sampled_from(["10.0.0.7", "10.0.0.7:554", "cam.local", "camera:8080", "[fe80::1]:554", "localhost"])
_PATHS = st.sampled_from(["", "/", "/cam", "/cam/1.sdp", "/cam?channel=1", "/cam#2"])
_AROUND = st.sampled_from(["{}", "{}: connection refused", "cannot open '{}' (401)", "a {}, and b", "http://x/ or {}"])


def _is_hidden(text: str) -> bool:
    return not any(word in text for word in _WORDS)


@given(_SCHEMES, _USERS, _PASSWORDS, _HOSTS, _PATHS, _AROUND)
def test_no_piece_of_a_password_is_left_in_a_text(
    scheme: str, user: str, password: str, host: str, path: str, around: str
) -> None:
    assume(not (" " in user + password and "://" in password))  # which may be two URLs
    raw, encoded = f"{user}:{password}", f"{quote(user, safe='')}:{quote(password, safe='')}"
    for login in (raw, encoded):
        url = f"{scheme}://{login}@{host}{path}"
        assert _is_hidden(redact(around.format(url)))
        assert _is_hidden(redact(percent_encoded(url)))
        assert redact(redact(url)) == redact(url)


@given(_SCHEMES, st.booleans(), _PASSWORDS, _HOSTS, _AROUND)
def test_no_piece_of_a_token_is_left_in_a_text(scheme: str, login: bool, token: str, host: str, around: str) -> None:
    assume(" " not in token)
    url = f"{scheme}://{'admin:s3cret@' if login else ''}{host}/cam?token={token}"
    assert _is_hidden(redact(around.format(url)))
    assert _is_hidden(redact(percent_encoded(url)))


@given(_SCHEMES, _USERS, _PASSWORDS, _HOSTS, _PATHS)
def test_a_password_that_is_encoded_stays(scheme: str, user: str, password: str, host: str, path: str) -> None:
    url = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{host}{path}"
    assert percent_encoded(url) == url
    assert redact(url).startswith(f"{scheme}://***@{host}")


@given(_SCHEMES, _USERS, _PASSWORDS, _HOSTS, _PATHS)
def test_a_password_that_is_not_encoded_is_found(scheme: str, user: str, password: str, host: str, path: str) -> None:
    assume(unquote(password) == password)  # otherwise it looks as if it were encoded
    assume(not set(".[") & set(f"{user}{password}"))  # or as if it held the host
    parts = urlsplit(percent_encoded(f"{scheme}://{user}:{password}@{host}{path}"))
    assert parts.netloc.rpartition("@")[2] == host
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == (user, password)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://10.0.0.7/cam",
        "http://10.0.0.7/cam?mail=me@example.com",
        "http://admin:secret@10.0.0.7/cam@2.0/x?mail=me@example.com",
        "http://cam.local:8080/a@b",
        "http://admin@camera/stream",
        "rtsp://admin:a%40b%2Fc@camera:554/stream",
        "http://[fe80::1]:8080/",
        "video.mp4",
        "me@example.com",
    ],
)
def test_a_proper_url_stays(url: str) -> None:
    assert percent_encoded(url) == url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://10.0.0.7/cam/1", "rtsp://10.0.0.7/cam/1"),
        ("rtsp://admin:secret@camera/1", "rtsp://***@camera/1"),
        ("http://10.0.0.7/x?key=1&b=2 gave 404", "http://10.0.0.7/x?*** gave 404"),
        ("rtsp://a:b@h/1, http://c:d@k/2", "rtsp://***@h/1, http://***@k/2"),
        ("http://10.0.0.7/cam?token=p@ss/word", "http://10.0.0.7/***"),
        ("no URL: me@example.com / x?y#z", "no URL: me@example.com / x?y#z"),
    ],
)
def test_what_is_no_secret_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown


_HOSTILE = (
    "a://",
    "_a:// ",
    "+://((((",
    "http://x@",
    "http://a.",
    "http://***@ ",
    "a b ",
    "://",
    " a://@",
    "1.",
    "[::",
    "x:1",
)


@settings(max_examples=20)
@given(st.one_of(st.sampled_from(_HOSTILE), st.text("a1:/@.?# []*+_é", min_size=1, max_size=8)), st.booleans())
def test_time_grows_with_the_length_and_no_faster(piece: str, is_url: bool) -> None:
    """A server chooses these texts, and the whole process waits while one is read."""
    text = ("http://" if is_url else "") + piece * (200_000 // len(piece))
    started = time.process_time()
    redact(text)
    percent_encoded(text)
    assert time.process_time() - started < 2


def test_the_examples_in_the_docstrings_are_right() -> None:
    assert doctest.testmod(asr_runtime.redact).failed == 0


@pytest.mark.parametrize(
    "text",
    [
        "lost (it asks for a password (401): give rtsp://USER:PASSWORD@HOST/...), mail to a@b",
        "alert target ftp://***@h.x/a: expected http(s)://USER:PASSWORD@HOST/PATH, special letters as in a%40b or a@b",
    ],
)
def test_advice_and_what_was_hidden_before_stay(text: str) -> None:
    assert redact(text) == text


def test_what_only_begins_like_advice_is_hidden() -> None:
    assert "word" not in redact("rtsp://USER:PASSWORD@word@10.0.0.7/cam")
    assert "word" not in redact("rtsp://***@word@10.0.0.7/cam")
