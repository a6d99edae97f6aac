"""Playlists and cameras that point elsewhere, passwords that break URLs: row 21 of the fault table."""

from __future__ import annotations

import itertools
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from cameras import MjpegCamera, RtspCamera, served_folder, with_login
from canaries import Canary, FileCanary
from fault_clips import run_ffmpeg
from fault_process import screen
from live_run import LiveRun
from live_samples import free_port
from runtime_samples import build_model, command_line, environment

from asr_runtime.redact import percent_encoded, redact

Measured = Callable[[str], None]
_USER, _PASSWORD = "us er", "s3cret@Hidden/Locked#Buried?Sunken:Veiled%Masked"
_PIECES = ("s3cret", "Hidden", "Locked", "Buried", "Sunken", "Veiled", "Masked")
_PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n"


def _playlists(secret: Path, place: str) -> dict[str, str]:
    """Playlists that lead to a file of the viewer's machine, or to another server."""
    return {
        "file": f"{_PLAYLIST}#EXTINF:2,\nfile://{secret}\n#EXTINF:2,\nfile://{secret}\n",
        "path": f"{_PLAYLIST}#EXTINF:2,\n{secret}\n#EXTINF:2,\n{secret}\n",
        "concat": f"{_PLAYLIST}#EXTINF:2,\nconcat:file:{secret}|file:{secret}\n",
        "nested": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=900000\nfile://{secret}\n",
        "key": f'{_PLAYLIST}#EXT-X-KEY:METHOD=AES-128,URI="file://{secret}"\n#EXTINF:2,\nmissing.ts\n',
        "server": f"{_PLAYLIST}#EXTINF:2,\nhttp://{place}/secret.ts\n",
        "encrypted": f"{_PLAYLIST}#EXTINF:2,\nhttps://{place}/secret.ts\n",
        "stream": f"{_PLAYLIST}#EXTINF:2,\ntcp://{place}\n",
    }


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A clip that no playlist may reach; decoding it would give frames."""
    path = tmp_path / "secret.ts"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=size=160x128:rate=10:duration=2", "-c:v", "libx264", "-threads", "1", path)
    return path


@pytest.mark.fault(21)
def test_a_playlist_of_a_camera_reads_no_local_file_and_no_other_server(
    tmp_path: Path, secret: Path, measured: Measured
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    with (
        Canary() as server,
        FileCanary(secret) as file,
        served_folder(folder, f"http://{server.place}/secret.ts") as place,
    ):
        playlists = _playlists(secret, server.place) | {"redirect": f"{_PLAYLIST}#EXTINF:2,\naway.ts\n"}
        urls = []
        for name, text in playlists.items():
            (folder / f"{name}.m3u8").write_text(text)
            urls.append(f"{place}/{name}.m3u8")
        (folder / "camera").write_text(playlists["file"])  # no suffix says that it is a playlist
        urls.append(f"{place}/camera")
        with LiveRun(tmp_path, *urls, "--no-reconnect", "--duration", 12) as run:
            code, summary = run.ends(20)
        assert (server.hits, file.hits()) == ([], 0)
    assert summary["scored"] == 0
    assert code == 4
    measured(f"{len(urls)} hostile playlists of a camera: 0 hits on a file and on a server")


@pytest.mark.fault(21)
def test_a_playlist_that_is_a_file_reads_no_other(tmp_path: Path, secret: Path, measured: Measured) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    with Canary() as server, FileCanary(secret) as file:
        for name, text in _playlists(secret, server.place).items():
            for suffix in ("m3u8", "mp4", "ts"):
                (folder / f"{name}.{suffix}").write_text(text)
        files = sorted(folder.iterdir())
        done = screen(tmp_path, *files)
        assert (server.hits, file.hits()) == ([], 0)
    assert [record["type"] for record in done.records] == ["error"] * len(files) + ["summary"]
    assert done.exit_code == 1
    measured(f"{len(files)} hostile playlists as files: 0 hits on a file and on a server")


@pytest.mark.fault(21)
def test_a_camera_that_redirects_is_not_followed(tmp_path: Path, measured: Measured) -> None:
    with ExitStack() as stack:
        canary = stack.enter_context(Canary())
        elsewhere = f"RTSP/1.0 302 Moved Temporarily\r\nCSeq: 1\r\nLocation: rtsp://{canary.place}/camera\r\n\r\n"
        rtsp = stack.enter_context(Canary(elsewhere.encode()))
        http = stack.enter_context(MjpegCamera(f"http://{canary.place}/camera"))
        urls = (http.url, f"{http.url}.m3u8", f"rtsp://{rtsp.place}/camera")
        with LiveRun(tmp_path, *urls, "--no-reconnect") as run:
            code, summary = run.ends(20)
        assert canary.hits == []
        assert rtsp.hits
    assert (code, summary["given_up"], summary["scored"]) == (4, 3, 0)
    measured("cameras that redirect (HTTP, HLS, RTSP): 0 hits")


@pytest.mark.fault(24)
def test_a_hostile_redirect_holds_up_no_other_camera(tmp_path: Path, measured: Measured) -> None:
    targets = ("http://" + "a@" * 8_000, "http://" + "a b" * 5_000, "rtsp://u:s3cret@[" + "x" * 16_000, "a://" * 4_000)
    with ExitStack() as stack:
        good = stack.enter_context(MjpegCamera())
        bad = [stack.enter_context(MjpegCamera(target)) for target in targets]
        run = stack.enter_context(LiveRun(tmp_path, good.url, *(camera.url for camera in bad)))
        begun = run.first(15, source=good.url, type="frame")["arrived"]
        lost = [run.first(15, source=camera.url, type="state", state="lost") for camera in bad]
        frames = [frame["arrived"] for frame in run.seen(begun, source=good.url, type="frame")]
        run.first(10, after=time.time(), source=good.url, type="frame")
        code, _ = run.ends(5, interrupt=True)
    longest = max((after - before for before, after in itertools.pairwise(frames)), default=0)
    assert code == 130
    assert all("it redirects to" in record["detail"] and len(record["detail"]) < 500 for record in lost)
    assert "s3cret" not in run.output() + run.errors()
    assert longest < 3
    measured(f"{len(targets)} redirects of 16 kB: named, the other camera was never silent for {longest:.2f} s")


@pytest.fixture
def locked_cameras() -> Iterator[dict[str, bool]]:
    """URLs with passwords -> whether the camera accepts them."""
    login = (_USER, _PASSWORD)
    # Each URL has its own camera, because URLs must differ without their passwords.
    cameras = [RtspCamera(5, login), RtspCamera(5, login), RtspCamera(5, login)]
    cameras += [MjpegCamera(rate=5, login=login, scheme=scheme) for scheme in ("Basic", "Digest") for _ in range(4)]
    with ExitStack() as stack:
        raw, encoded = login, (quote(_USER), quote(_PASSWORD, safe=""))
        wrong = (_USER, _PASSWORD.replace("s3cret", "s3cret1"))
        kinds = [(raw, True), (encoded, True), (wrong, False), ((quote(_USER), quote(wrong[1], safe="")), False)]
        plan = [*kinds[:3], *kinds, *kinds]
        urls = [stack.enter_context(camera).url for camera in cameras]
        yield {with_login(url, *given): right for url, (given, right) in zip(urls, plan, strict=True)}


@pytest.mark.heavy
@pytest.mark.fault(21)
def test_a_password_with_any_letter_opens_its_camera_and_is_never_shown(
    tmp_path: Path, locked_cameras: dict[str, bool], measured: Measured
) -> None:
    metrics = free_port()
    with LiveRun(tmp_path, *locked_cameras, "--metrics", metrics) as run:
        for url, right in locked_cameras.items():
            if right:
                run.first(20, source=redact(percent_encoded(url)), type="frame")
            else:
                lost = run.first(20, source=redact(percent_encoded(url)), type="state", state="lost")
                assert "password" in lost["detail"] or "401" in lost["detail"]
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5) as answer:
            served = answer.read().decode()
        code, _ = run.ends(5, interrupt=True)
    assert code == 130
    assert "camera" in served
    shown = run.output() + run.errors() + served
    assert not [piece for piece in _PIECES if piece in shown]
    measured(f"{len(locked_cameras)} URLs with odd passwords, RTSP and HTTP: the right ones open, 0 leaks")


@pytest.mark.fault(21)
@pytest.mark.parametrize("form", ["table", "csv"])
def test_a_password_is_in_no_table_and_no_output_file(tmp_path: Path, form: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    login = (_USER, _PASSWORD)
    with MjpegCamera(rate=5, login=login) as camera:
        urls = [with_login(place, *login) for place in (camera.url, f"rtsp://127.0.0.1:{free_port()}/camera")]
        urls.append(f"{camera.url}/{form}?token={_PASSWORD}")
        options = ("--model", model, "--device", "cpu", "--format", form, "--duration", "3")
        for output in ((), ("-o", "results")):
            command = command_line("screen", *urls, *options, *output)
            done = subprocess.run(
                command, capture_output=True, env=environment(), timeout=30, cwd=tmp_path, check=False
            )
            shown = done.stdout + done.stderr + ((tmp_path / "results").read_bytes() if output else b"")
            assert b"camera" in shown
            assert not [piece for piece in _PIECES if piece.encode() in shown]
