"""Cameras that are absent, hang, go away, come back, send garbage or break the decoder: rows 8 to 11, 22."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from signal import SIGSEGV, SIGSTOP

import psutil
import pytest
from cameras import MjpegCamera, RtspCamera, hls_camera, silent_host, with_login
from child_samples import children, is_gone
from live_run import LiveRun
from live_samples import free_port

from asr_runtime.redact import redact

Measured = Callable[[str], None]
_BACKOFF = (0.5, 1, 2, 4, 5, 5)


@contextmanager
def _absent_cameras() -> Iterator[dict[str, str]]:
    """URL -> pattern of the message that says what is wrong with it."""
    login = ("viewer", "right")
    with ExitStack() as stack:
        page, missing, basic, digest = (
            stack.enter_context(camera)
            for camera in (
                MjpegCamera("html"),
                MjpegCamera(404),
                MjpegCamera(login=login),
                MjpegCamera(login=login, scheme="Digest"),
            )
        )
        rtsp = stack.enter_context(RtspCamera(login=login, rate=5))
        open_rtsp = stack.enter_context(RtspCamera(rate=5))
        silent = stack.enter_context(silent_host())
        refused = "refused|nothing listens"
        unknown = "host name|unknown host|resolve|not known"
        password = "401|password|credentials|login"
        yield {
            f"rtsp://127.0.0.1:{free_port()}/camera": refused,
            f"http://127.0.0.1:{free_port()}/camera": refused,
            f"http://127.0.0.1:{free_port()}/live.m3u8": refused,
            "rtsp://nothing.invalid/camera": unknown,
            "http://nothing.invalid/camera": unknown,
            f"rtsp://{silent}/camera": "no answer|does not answer|silent|timed out",
            f"http://{silent}/camera": "no answer|does not answer|silent|timed out",
            open_rtsp.url + "-that-is-not": "404|not found",
            missing.url: "404",
            missing.url + ".m3u8": "404",
            page.url: "html|web page",
            with_login(rtsp.url, "viewer", "wrong"): password,
            with_login(basic.url, "viewer", "wrong"): password,
            basic.url + "-without-login": password,
            with_login(digest.url, "viewer", "wrong"): password,
        }


@pytest.mark.fault(8)
def test_what_is_wrong_with_an_absent_camera_is_reported_soon(tmp_path: Path, measured: Measured) -> None:
    with _absent_cameras() as wrong, LiveRun(tmp_path, *wrong, "--no-reconnect") as run:
        code, summary = run.ends(20)
    slowest: dict[bool, float] = {True: 0, False: 0}
    failures = []
    for url, pattern in wrong.items():
        source = redact(url)
        begun = run.seen(type="state", source=source, state="connecting")
        lost = run.seen(type="state", source=source, state="lost")
        if len(begun) != 1 or len(lost) != 1 or not lost[0].get("given_up"):
            failures.append(f"{source}: {run.seen(source=source)}")
            continue
        if not re.search(pattern, lost[0]["detail"], re.IGNORECASE):
            failures.append(f"{source}: {lost[0]['detail']!r} does not say {pattern}")
        is_silent = "no answer" in pattern
        seconds = lost[0]["arrived"] - begun[0]["arrived"]
        slowest[is_silent] = max(slowest[is_silent], seconds)
        if seconds > (5.2 if is_silent else 1):
            failures.append(f"{source}: reported only after {seconds:.1f} s")
    assert not failures, "\n".join(failures)
    assert code == 4
    assert (summary["given_up"], summary["read"]) == (len(wrong), 0)
    measured(f"{len(wrong)} cameras at once: reported within {slowest[False]:.2f} s, silent ones {slowest[True]:.2f} s")


@pytest.mark.fault(8)
def test_an_absent_camera_is_retried_more_and_more_rarely_until_it_is_there(tmp_path: Path, measured: Measured) -> None:
    camera = MjpegCamera(404, rate=10)
    with camera, LiveRun(tmp_path, camera.url) as run:
        after, waits = 0.0, []
        for expected in _BACKOFF[:4]:
            lost = run.first(10, after, type="state", state="lost")
            assert not lost.get("given_up")
            assert expected * 0.8 <= lost["retry"] <= expected * 1.2
            after = run.first(10, lost["arrived"], type="state", state="connecting")["arrived"]
            assert after - lost["arrived"] == pytest.approx(lost["retry"], abs=0.5)
            waits.append(lost["retry"])
        camera.answer = "stream"
        run.first(8, after, type="frame")
        code, summary = run.ends(5, interrupt=True)
    assert code == 130
    assert camera.visits <= 6
    assert summary["given_up"] == 0
    measured("retried after " + ", ".join(f"{wait:.2f}" for wait in waits) + " s, then scored")


@pytest.mark.heavy
@pytest.mark.fault(9)
def test_a_camera_that_hangs_is_stalled_and_none_of_its_old_frames_is_scored(
    tmp_path: Path, measured: Measured
) -> None:
    with RtspCamera() as rtsp, MjpegCamera() as mjpeg, LiveRun(tmp_path, rtsp.url, mjpeg.url) as run:
        for camera in (rtsp, mjpeg):
            run.first(10, source=camera.url, type="frame")
        hung = time.time()
        rtsp.stop()
        mjpeg.stalled = True
        stalled = {c.url: run.first(7, hung, source=c.url, type="state", state="stalled") for c in (rtsp, mjpeg)}
        time.sleep(max(0, hung + 9 - time.time()))
        back = time.time()
        assert not run.seen(hung + 0.5, back, type="frame")
        rtsp.cont()
        mjpeg.stalled = False
        again = {}
        for camera in (rtsp, mjpeg):
            live = run.first(12, back, source=camera.url, type="state", state="live")
            again[camera.url] = run.first(5, live["arrived"] - 0.1, source=camera.url, type="frame")
            assert again[camera.url]["time"] >= back
        time.sleep(1)
        assert max(record["age"] for record in run.seen(back, type="frame")) < 0.5
        code, _ = run.ends(5, interrupt=True)
    assert code == 130
    for name, camera in (("RTSP", rtsp), ("MJPEG", mjpeg)):
        delay, scored = stalled[camera.url]["arrived"] - hung, again[camera.url]["arrived"] - back
        assert delay <= 6
        measured(f"{name}: stalled after {delay:.1f} s, no old frame, scored {scored:.1f} s after it goes on")


@pytest.mark.heavy
@pytest.mark.fault(10)
def test_an_rtsp_camera_that_restarts_ten_times_is_scored_again_and_nothing_grows(
    tmp_path: Path, measured: Measured
) -> None:
    with RtspCamera() as camera, LiveRun(tmp_path, camera.url) as run:
        run.first(10, type="frame")
        seconds, usage = [], []
        for _ in range(10):
            camera.kill()
            run.first(10, time.time(), type="state", state="connecting")
            camera.restart()
            listens = time.time()
            frame = run.first(9, listens, type="frame")
            seconds.append(frame["arrived"] - listens)
            time.sleep(2.2)  # long enough that the next outage is a new one
            usage.append(_usage_of(run.process.pid))
        code, summary = run.ends(5, interrupt=True)
    assert (code, summary["reconnects"], summary["failed"]) == (130, 10, 0)
    assert max(seconds) <= 8
    files, threads, memory = ([row[i] for row in usage[1:]] for i in range(3))
    measured(f"scored again within {max(seconds):.1f} s; descriptors {files}, threads {threads}")
    measured(f"memory {memory[0]:.1f} -> {memory[-1]:.1f} MB")
    assert files[-1] <= files[0]
    assert threads[-1] <= threads[0]
    assert memory[-1] - memory[0] < 5


@pytest.mark.heavy
@pytest.mark.fault(10)
def test_an_isolated_rtsp_camera_that_restarts_is_scored_again_and_nothing_grows(
    tmp_path: Path, measured: Measured
) -> None:
    with RtspCamera() as camera, LiveRun(tmp_path, camera.url, "--isolate") as run:
        run.first(10, type="frame")
        seconds, usage, processes = [], [], set()
        for _ in range(3):
            camera.kill()
            run.first(10, time.time(), type="state", state="connecting")
            camera.restart()
            listens = time.time()
            seconds.append(run.first(9, listens, type="frame")["arrived"] - listens)
            time.sleep(2.2)  # long enough that the next outage is a new one
            (process,) = _decoding(run)
            processes.add(process)
            usage.append((*_usage_of(run.process.pid)[:2], *_usage_of(process)[:2]))
        code, summary = run.ends(5, interrupt=True)
    assert all(is_gone(process) for process in processes)
    assert (code, summary["reconnects"], summary["failed"]) == (130, 3, 0)
    assert len(processes) == 3
    assert max(seconds) <= 8
    assert all(last <= first for first, last in zip(usage[0], usage[-1], strict=True))
    measured(f"--isolate: scored again within {max(seconds):.1f} s; descriptors, threads of both processes {usage}")


def _decoding(run: LiveRun) -> list[int]:
    """Processes that decode a camera each."""
    return children("asr_runtime.isolation.stream", run.process.pid)


@pytest.mark.heavy
@pytest.mark.fault(22)
def test_a_decoder_that_crashes_or_hangs_costs_its_camera_and_no_other(tmp_path: Path, measured: Measured) -> None:
    with RtspCamera() as rtsp, MjpegCamera() as mjpeg, LiveRun(tmp_path, rtsp.url, mjpeg.url, "--isolate") as run:
        for camera in (rtsp, mjpeg):
            run.first(10, source=camera.url, type="frame")
        for signal, limit, reason in (
            (SIGSEGV, 1, "decoding crashed (signal 11)"),
            (SIGSTOP, 6, "no frame within 5 s"),
        ):
            begun = time.time()
            os.kill(_decoding(run)[0], signal)
            lost = run.first(limit, begun, type="state", state="lost")
            delay = lost["arrived"] - begun
            assert lost["detail"].startswith(reason)
            frame = run.first(8, lost["arrived"], source=lost["source"], type="frame")
            other = mjpeg.url if lost["source"] == rtsp.url else rtsp.url
            assert not run.seen(begun, source=other, type="state")
            rate = len(run.seen(begun, frame["arrived"], source=other, type="frame")) / (frame["arrived"] - begun)
            assert rate > 15
            assert len(_decoding(run)) == 2
            back = frame["arrived"] - lost["arrived"]
            measured(f"{reason}: lost after {delay:.1f} s, scored {back:.1f} s later; the other: {rate:.0f} frames/s")
        code, summary = run.ends(5, interrupt=True)
    assert (code, summary["reconnects"], summary["failed"]) == (130, 2, 0)


def _usage_of(process: int) -> tuple[int, int, float]:
    """Open descriptors, threads, megabytes."""
    watched = psutil.Process(process)
    return watched.num_fds(), watched.num_threads(), watched.memory_info().rss / 2**20


@pytest.mark.fault(10)
def test_an_mjpeg_camera_that_ends_its_connections_is_scored_again(tmp_path: Path, measured: Measured) -> None:
    with MjpegCamera(lengths=False) as camera, LiveRun(tmp_path, camera.url) as run:
        run.first(10, type="frame")
        seconds = []
        for _ in range(3):
            dropped = time.time()
            camera.drop()
            lost = run.first(2, dropped, type="state", state="lost")
            frame = run.first(8, lost["arrived"], type="frame")
            seconds.append(frame["arrived"] - dropped)
        code, summary = run.ends(5, interrupt=True)
    assert (code, summary["reconnects"], summary["failed"]) == (130, 3, 0)
    measured(f"MJPEG: connection ended 3 times, scored again within {max(seconds):.1f} s")


@pytest.mark.heavy
@pytest.mark.fault(10)
def test_an_hls_playlist_is_scored_live(tmp_path: Path, measured: Measured) -> None:
    with hls_camera(tmp_path / "hls") as url, LiveRun(tmp_path, url, "--duration", 7) as run:
        code, summary = run.ends(15)
        assert not run.seen(type="state", state="lost")
    assert (code, summary["failed"], summary["given_up"]) == (0, 0, 0)
    assert summary["read"] > 40
    assert summary["scored"] >= 4
    measured(f"HLS: {summary['read']} frames in 7 s, {summary['scored']} scored: they come a segment at a time")


@pytest.mark.parametrize("isolate", [(), ("--isolate",)])
def test_only_key_frames_of_an_rtsp_camera_are_decoded(tmp_path: Path, isolate: tuple[str, ...]) -> None:
    """The camera sends 20 frames a second, and every 20th is a key frame."""
    with RtspCamera(rate=20) as camera, LiveRun(tmp_path, camera.url, "--key-frames", "--duration", 8, *isolate) as run:
        run.ends(30)
        frames, states = run.seen(type="frame"), [record["state"] for record in run.seen(type="state")]
    assert 4 <= len(frames) <= 9
    gaps = [later["time"] - sooner["time"] for sooner, later in pairwise(frames)]
    assert all(0.7 < gap < 1.4 for gap in gaps[1:]), gaps
    assert all(frame["age"] < 0.5 for frame in frames)
    assert "stalled" not in states
    assert "lost" not in states


@pytest.mark.fault(11)
@pytest.mark.parametrize("lengths", [True, False])
def test_a_picture_that_is_garbage_is_skipped_and_counted(tmp_path: Path, measured: Measured, lengths: bool) -> None:
    with MjpegCamera(lengths=lengths) as camera, LiveRun(tmp_path, camera.url) as run:
        run.first(10, type="frame")
        camera.garbage = 1
        error = run.first(3, type="error")
        frame = run.first(2, error["arrived"], type="frame")
        code, summary = run.ends(5, interrupt=True)
    assert error["source"] == camera.url
    assert (code, summary["failed"], summary["reconnects"], camera.visits) == (130, 1, 0, 1)
    measured(f"next frame scored {1000 * (frame['arrived'] - error['arrived']):.0f} ms later: {error['error']}")
