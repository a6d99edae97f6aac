"""Pictures and videos on web servers, also those that lie, redirect or never end: row 25 of the fault table."""

from __future__ import annotations

import gzip
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from canaries import Canary
from fault_process import screen
from http_login import is_let_in, question
from live_run import LiveRun
from live_samples import serving
from runtime_samples import build_model, command_line, encoded, environment, picture, write_clip

Measured = Callable[[str], None]
Answer = tuple[int, dict[str, str], bytes]
_LOGIN = ("me", "s3cret/Hidden")
_CLIP_FRAMES = 12


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, answers: dict[str, Answer], visits: list[str], *arguments: Any) -> None:
        self._answers, self._visits = answers, visits
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self._visits.append(path)
        status, headers, body = self._answers.get(path, (404, {}, b"not here"))
        is_locked = path.startswith("/locked/")
        if is_locked and not is_let_in(self.headers.get("Authorization", ""), *_LOGIN, "Basic"):
            status, headers, body = 401, {"WWW-Authenticate": question("Basic")}, b""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def web_server(answers: dict[str, Answer]) -> Iterator[tuple[str, list[str]]]:
    """Serve answers by their paths; gives the URL of the root and the paths that were asked for."""
    visits: list[str] = []
    with serving(partial(_Handler, answers, visits)) as root:
        yield root, visits


def _file(body: bytes, kind: str) -> Answer:
    return 200, {"Content-Type": kind, "Content-Length": str(len(body))}, body


@pytest.mark.fault(25)
@pytest.mark.parametrize("options", [(), ("--isolate", "--claims")])
def test_a_picture_and_a_video_are_fetched_once_and_scored_as_files(
    tmp_path: Path, options: tuple[str, ...], measured: Measured
) -> None:
    photo = encoded(picture(), ".png")
    clip = write_clip(tmp_path / "clip.avi", _CLIP_FRAMES).read_bytes()
    (tmp_path / "clip.avi").unlink()
    answers = {
        "/photo.png": _file(photo, "image/png"),
        "/locked/photo.JPG": _file(photo, "image/jpeg"),
        "/clip.avi": _file(clip, "video/x-msvideo"),
        "/untyped.webp": _file(photo, "application/octet-stream"),
        "/moved.png": (302, {"Location": "/photo.png"}, b""),
    }
    with web_server(answers) as (root, visits):
        locked = root.replace("//", "//me:s3cret%2FHidden@") + "/locked/photo.JPG?token=s3cret"
        urls = (f"{root}/photo.png", locked, f"{root}/clip.avi", f"{root}/untyped.webp", f"{root}/moved.png")
        done = screen(tmp_path, *urls, f"{root}/photo.png", *options)
    assert done.exit_code == 0, done.errors
    images = [record["source"] for record in done.records if record["type"] == "image"]
    shown = root.replace("//", "//***@") + "/locked/photo.JPG?***"
    assert images == [f"{root}/photo.png", shown, f"{root}/untyped.webp", f"{root}/moved.png"]
    assert [r["type"] for r in done.records if r.get("source") == f"{root}/clip.avi"].count("frame") == _CLIP_FRAMES
    assert len([path for path in visits if path == "/photo.png"]) == 2, "by its name once, once by the redirect"
    assert visits.count("/clip.avi") == 1
    assert not any(piece in str(done.records) + done.errors for piece in ("s3cret", "Hidden"))
    measured(f"{len(urls)} files of a web server: each fetched once and scored, 0 leaks")


@pytest.mark.fault(25)
def test_a_url_that_gives_no_file_is_one_error(tmp_path: Path, measured: Measured) -> None:
    huge = {"Content-Type": "image/jpeg", "Content-Length": "64000001"}
    with Canary() as canary:
        away = {"Location": f"http://{canary.place}/photo.jpg"}
        answers: dict[str, tuple[Answer, str]] = {
            "/page.jpg": (_file(b"<html>log in</html>", "text/html"), "a web page, expected a picture or a video"),
            "/page.png": (_file(b"<html>log in</html>", "image/png"), "neither a picture nor a video"),
            "/away.jpg": ((302, away, b""), "redirects to"),
            "/away.mp4": ((302, away, b""), "redirects to"),
            "/loop.jpg": ((302, {"Location": "/loop.jpg"}, b""), "redirects more than 3 times"),
            "/huge.jpg": (
                (200, huge, b"\xff\xd8\xff"),
                "larger than 64 MB, which is the limit; fetch it by hand: curl",
            ),
            "/huge.mp4": ((200, {**huge, "Content-Length": "2000000001"}, b""), "larger than 2000 MB"),
            "/cut.jpg": ((200, {**huge, "Content-Length": "5000"}, b"\xff\xd8\xff"), "cut short: 3 of 5000 bytes"),
            "/live.mp4": ((200, {"Content-Type": "video/mp4"}, b"\0" * 99), "of unknown length"),
            "/stream.jpg": ((200, {"Content-Type": "multipart/x-mixed-replace; boundary=b"}, b"--b"), "MJPEG stream"),
            "/broken.jpg": (_file(encoded(picture(), ".jpg")[:-400], "image/jpeg"), "/broken.jpg: "),
            "/clip.jpg": (_file(b"\0\0\0\x18ftypisom", "image/jpeg"), "a video under the name of a picture"),
            "/locked/photo.jpg": (_file(b"", "image/jpeg"), "it asks for a password (401)"),
            "/packed.jpg": (
                (200, {"Content-Encoding": "gzip"}, gzip.compress(b"x")),
                "sent compressed (gzip), unasked",
            ),
            "/nowhere.jpg": ((302, {}, b""), "it redirects without saying where (302)"),
            "/absent.jpg": ((404, {}, b""), "nothing at this path (404)"),
            "/busy.jpg": ((503, {}, b""), "the server answered 503"),
        }
        with web_server({path: answer for path, (answer, _) in answers.items()}) as (root, visits):
            started = time.monotonic()
            done = screen(tmp_path, *(root + path for path in answers), "http://127.0.0.1:1/photo.jpg")
            seconds = time.monotonic() - started
        assert canary.hits == []
    errors = {record["source"].removeprefix(root): record["error"] for record in done.records[:-1]}
    assert {record["type"] for record in done.records[:-1]} == {"error"}
    assert errors.pop("http://127.0.0.1:1/photo.jpg").endswith("nothing listens there")
    assert {path: text for path, (_, text) in answers.items() if text not in errors[path]} == {}, errors
    assert set(errors) == set(answers)
    assert max(visits.count(path) for path in answers if path != "/loop.jpg") == 1
    assert done.exit_code == 1
    measured(f"{len(errors) + 1} URLs that give no file: one error each, {seconds:.1f} s in all, 0 hits elsewhere")


@pytest.mark.fault(25)
def test_the_picture_of_a_camera_is_polled_with_a_rate_or_a_name(tmp_path: Path) -> None:
    with web_server({"/snapshot.jpg": _file(encoded(picture(), ".jpg"), "image/jpeg")}) as (root, visits):
        (tmp_path / "site.toml").write_text(f'door = "{root}/snapshot.jpg"\n')
        with LiveRun(tmp_path, f"{root}/snapshot.jpg", "--sources", "site.toml", "--fps", "10") as run:
            for source in (f"{root}/snapshot.jpg", "door"):
                run.first(15, source=source, type="frame", frame=1)
            code, _ = run.ends(5, interrupt=True)
    assert code == 130
    assert len(visits) >= 4


@pytest.mark.fault(25)
def test_a_url_in_a_list_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    with web_server({"/photo.jpg": _file(encoded(picture(), ".jpg"), "image/jpeg")}) as (root, visits):
        command = command_line("screen", "-", "--model", model, "--device", "cpu", "--format", "jsonl")
        done = subprocess.run(
            command,
            input=f"{root}/photo.jpg\n".encode(),
            capture_output=True,
            env=environment(),
            timeout=30,
            check=False,
        )
    assert visits == []
    assert b"cannot stand in a list" in done.stdout
    assert done.returncode == 1
