"""URLs that people write: a right one in a form that can be connected to, a wrong one refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_runtime.errors import ConfigurationError
from asr_runtime.http.urls import checked_url

_SCHEMES = ("http", "rtsp")


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("http://10.0.0.7/x", "http://10.0.0.7/x"),
        ("RTSP://Camera:554/a?b=c#d", "rtsp://Camera:554/a?b=c#d"),
        (" http://camera_1.local./\n", "http://camera_1.local./"),
        ("http://camera:/x", "http://camera/x"),
        ("http://camera:0080/x", "http://camera:80/x"),
        ("http://[::1]:80/", "http://[::1]:80/"),
        ("http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/"),
        ("rtsp://[fe80::1%eth0]:554/", "rtsp://[fe80::1%eth0]:554/"),
        ("http://bücher.example/x", "http://xn--bcher-kva.example/x"),
        ("http://camera/a b/é?q=ü%20", "http://camera/a%20b/%C3%A9?q=%C3%BC%20"),
        ("rtsp://me:p@ss/w#rd?ü@10.0.0.7/cam", "rtsp://me:p%40ss%2Fw%23rd%3F%C3%BC@10.0.0.7/cam"),
    ],
)
def test_a_url_is_given_in_a_form_that_can_be_connected_to(url: str, checked: str) -> None:
    assert checked_url(url, _SCHEMES).geturl() == checked


@pytest.mark.parametrize(
    "url",
    [
        *("http://[abc/x", "rtsp://[abc/x", "http://abc]/x", "http://[::1/", "http://[::1]x/", "http://[]/"),
        *("http://[::g]/", "http://::1/", "http://[1.2.3.4]/", "http://[v1.a]/", "http://[::1%25]/"),
        *("http://h:99999/", "http://h:0/", "http://h:-1/", "http://h:+80/", "http://h:8 0/", "http://h:\uff18\uff10/"),
        *("http://h:80:80/", "http://h:x/", "http://h:" + "9" * 5000),
        *(
            "http://",
            "http:///x",
            "http://:80/",
            "http://me:secret@/x",
            "http://me:secret@:80/x",
            "http://?x",
            "http://#",
        ),
        *("http://a..b/", "http://.a/", "http://" + "a" * 64 + "/", "http://" + "a." * 130 + "b/", "http://a,b/"),
        *("http://1.2.3.999/", "http://\u2102\u2100.com/", "http://a\u3002\u3002b/", "http://a%41/", "http://$HOST/"),
        *("http://h/\r\nX: y", "http://h\0/", "http://h/\x1b[31m", "http://h\t/", "http://\udcff/", "ftp://h/", "h/x"),
        "http://h/" + "x" * 10_000,
    ],
)
def test_a_url_that_cannot_be_is_refused_in_one_line_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^source .*: expected ") as refusal:
        checked_url(url, _SCHEMES, "source")
    message = str(refusal.value)
    assert message.isprintable()
    assert len(message) < 500
    assert "secret" not in message


_PIECES = st.sampled_from(
    [*"[]:/@?#%.,- \n\0\\", "::", "1", "a", "ü", "fe80", "\uff05", "25", "\u2100", "xn--", "\udc80"]
)


@given(st.sampled_from(["http", "rtsp", ""]), st.lists(_PIECES, max_size=12))
def test_any_text_is_taken_or_refused(scheme: str, pieces: list[str]) -> None:
    try:
        parts = checked_url(f"{scheme}://{''.join(pieces)}", _SCHEMES)
    except ConfigurationError:
        return
    assert parts.hostname
    assert parts.port is None or 0 < parts.port < 65536
    assert parts.geturl().isascii()
    assert checked_url(parts.geturl(), _SCHEMES) == parts
