"""The API over real connections: the records of asr-screen, in every form of request and answer."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from runtime_samples import black_png, build_model, encoded, shade
from serve_samples import Client, Serve

from asr_runtime import Detector, screen

WHITE, BLACK = (encoded(shade(level, 32, 48), ".png") for level in (255, 0))


def form(*files: tuple[str, bytes], kind: str = "application/octet-stream") -> tuple[bytes, dict[str, str]]:
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join([*parts, b"--limit--\r\n"]), {"Content-Type": "multipart/form-data; boundary=limit"}


def without_time(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in ("seconds", "model")}


def test_a_picture_gets_the_record_that_asr_screen_gives(
    server: Client, detector: Detector, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(photo)
    monkeypatch.chdir(tmp_path)
    expected = [record.to_dict() for record in screen(["cat.png"], detector)]
    answer = server.screen(photo, "name=cat.png")
    assert answer["records"] == expected[:-1]
    assert without_time(answer["summary"]) == without_time(expected[-1])


def test_a_clip_gets_the_records_that_asr_screen_gives_as_they_come(
    server: Client, detector: Detector, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clip.parent)
    expected = [record.to_dict() for record in screen([clip.name], detector, fps=5)]
    status, headers, body = server.ask(
        "POST", f"/v1/screen?name={clip.name}&fps=5", clip.read_bytes(), {"Accept": "application/x-ndjson"}
    )
    records = [json.loads(line) for line in body.splitlines()]
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert records[:-1] == expected[:-1]
    assert {r["type"] for r in records} >= {"frame", "segment", "video", "summary"}


def test_a_form_with_several_files_gets_their_records_in_order(server: Client, clip: Path) -> None:
    files = [("a.png", WHITE), ("clip.avi", clip.read_bytes()), ("b.jpg", b"no picture"), ("ö/c.png", BLACK)]
    body, headers = form(*files)
    answer = server.screen(body, "fps=1", headers)
    sources = list(dict.fromkeys(r["source"] for r in answer["records"]))
    assert sources == [name for name, _ in files]
    kinds = {r["source"]: r["type"] for r in answer["records"]}
    assert kinds == {"a.png": "image", "clip.avi": "video", "b.jpg": "error", "ö/c.png": "image"}
    assert answer["summary"]["failed"] == 1


@pytest.mark.parametrize(
    ("name", "kind"), [("x", "application/octet-stream"), ("x", "video/mp4"), ("x.mp4", "image/png")]
)
def test_a_video_is_known_by_suffix_or_type_or_content(server: Client, examples: Path, name: str, kind: str) -> None:
    body, headers = form((name, (examples / "video" / "pan.mp4").read_bytes()), kind=kind)
    assert server.screen(body, "fps=1", headers)["records"][-1]["type"] == "video"


def test_names_are_shown_and_never_opened(server: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(WHITE)
    (record,) = server.screen(b"nothing", f"name={secret}")["records"]
    assert record["error"].startswith(f"{secret}: not a complete image")
    (record,) = server.screen(b"nothing", "name=a%0Ab%1B%5B31m.png")["records"]
    assert record["source"] == "a\ufffdb\ufffd[31m.png"


def test_nothing_stays_after_an_answer(server: Client, clip: Path) -> None:
    for _ in range(3):
        server.screen(clip.read_bytes(), "name=clip.avi&fps=1")
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a connection that has just ended
            links.append(str(link.readlink()))
    assert len(links) > 3
    assert not [link for link in links if "asr-upload" in link]
    assert b"asr_upload_bytes 0.0" in server.ask("GET", "/metrics")[2]


def test_the_card_the_state_and_the_figures_are_served(server: Client, detector: Detector) -> None:
    model = json.loads(server.ask("GET", "/v1/model")[2])
    assert (model["sha256"], model["card"]["name"]) == (detector.sha256, "brightness")
    assert server.ask("GET", "/healthz")[0] == 200
    until = time.monotonic() + 20
    while server.ask("GET", "/readyz")[0] != 200:
        assert time.monotonic() < until
        time.sleep(0.05)
    server.screen(WHITE)
    figures = server.ask("GET", "/metrics")[2].decode()
    assert 'asr_frames_total{source="files",verdict="ai"}' in figures
    assert 'asr_requests_total{status="200"}' in figures


def test_the_api_page_describes_every_route_and_loads_nothing(server: Client) -> None:
    described = json.loads(server.ask("GET", "/openapi.json")[2])
    _, headers, page = server.ask("GET", "/docs")
    assert all(path in page.decode() for path in described["paths"])
    assert set(described["paths"]) == {"/v1/screen", "/v1/model", "/healthz", "/readyz", "/metrics"}
    assert "default-src 'none'" in headers["content-security-policy"]
    assert b"<script" not in page
    assert b"//" not in page.replace(b"http://localhost:8765", b"")


def test_mistakes_are_one_line_that_says_what_was_expected(server: Client) -> None:
    for query, headers, body, status, message in (
        ("fps=0", {}, WHITE, 422, "fps: Input should be greater than 0"),
        ("format=xml", {}, WHITE, 422, "format: Input should be 'json' or 'jsonl'"),
        ("", {}, b"", 400, "no file came"),
        ("", {"Content-Type": "multipart/form-data"}, WHITE, 400, "no boundary"),
        ("", {"Content-Type": "multipart/form-data; boundary=x"}, WHITE, 400, "not a valid multipart form"),
        ("", {"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\n", 400, "cut short"),
    ):
        answered, _, text = server.ask("POST", f"/v1/screen?{query}", body, headers)
        assert (answered, message in json.loads(text)["error"]) == (status, True), text


def test_a_bomb_and_an_endless_inference_cost_only_themselves(serve: Serve) -> None:
    with serve(model=build_model(endless=True), deadline=2.0, pixels=1_000_000) as client:
        (bomb,) = client.screen(black_png(16_000))["records"]
        assert "more than 1000000 pixels" in bomb["error"]
        (stuck,) = client.screen(WHITE)["records"]
        assert stuck["kind"] == "DeadlineError"
        assert [client.screen(BLACK)["records"][0]["verdict"] for _ in range(4)] == ["real"] * 4


def test_a_long_video_is_scored_in_part_when_the_time_is_over(serve: Serve, clip: Path) -> None:
    with serve(seconds=0.001) as client:
        body, headers = form(("clip.avi", clip.read_bytes()), ("late.png", WHITE))
        records = client.screen(body, "", headers)["records"]
    assert "the time limit of 0.001 s per request was reached; ask for a lower fps" in records[-2]["error"]
    assert records[-3]["type"] == "video"
    assert "late.png: not looked at" in records[-1]["error"]
