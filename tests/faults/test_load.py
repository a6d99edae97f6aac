"""A model slower than its camera, and a camera that dies beside another: rows 12 and 13 of the fault table."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cameras import MjpegCamera, RtspCamera
from live_run import LiveRun
from runtime_samples import build_model, environment

from asr_runtime import Detector

Measured = Callable[[str], None]
_RATE = 30
_TRIED = 30  # products of matrices that are timed
_SECONDS = 30  # a queue would be 15 s behind by then


def _work() -> int:
    """Return how many products take twice the time between two frames on this machine."""
    detector, frame = Detector(build_model(work=_TRIED), device="cpu"), np.zeros((64, 64, 3), np.uint8)
    seconds = min(timeit.repeat(lambda: detector(frame), number=1, repeat=10))
    return math.ceil(2 / _RATE / (seconds / _TRIED))


@pytest.mark.heavy
@pytest.mark.fault(12)
@pytest.mark.parametrize("kind", [MjpegCamera, RtspCamera])
def test_frames_stay_fresh_when_the_model_is_slower_than_the_camera(
    tmp_path: Path, measured: Measured, kind: type[MjpegCamera | RtspCamera]
) -> None:
    model = tmp_path / "slow.onnx"
    model.write_bytes(build_model(work=_work()))
    with kind(rate=_RATE) as camera:
        report = _overload(model, camera.url)
    times, ages = np.array(report["ages"]).T
    times -= times[0]
    settled = ages[times > 2]
    third = len(settled) // 3
    p99 = float(np.percentile(settled, 99))
    growth = float(np.median(settled[-third:]) - np.median(settled[:third]))
    rate = len(ages) / times[-1]
    measured(
        f"{kind.__name__}: {_RATE} frames/s in, {rate:.1f} scored, {_SECONDS} s; age at inference, by the clock in"
        f" its pixels: median {1000 * np.median(settled):.0f}, p99 {1000 * p99:.0f}, growth {1000 * growth:.0f} ms"
    )
    summary = report["summary"]
    assert summary["dropped"] > summary["scored"] / 3  # it was overloaded
    assert summary["read"] == summary["scored"] + summary["dropped"] + summary["failed"] + summary["skipped"]
    assert p99 <= 0.1
    assert growth <= 0.02


def _overload(model: Path, url: str) -> dict:  # type: ignore[type-arg]
    folder = Path(__file__).parent
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] += f":{folder.parent / 'runtime'}"
    command = [sys.executable, str(folder / "overload.py"), str(model), str(_SECONDS), url]
    done = subprocess.run(command, capture_output=True, env=variables, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return dict(json.loads(done.stdout))


@pytest.mark.heavy
@pytest.mark.fault(13)
def test_a_camera_that_dies_does_not_slow_the_other(tmp_path: Path, measured: Measured) -> None:
    with MjpegCamera() as good, RtspCamera() as bad, LiveRun(tmp_path, good.url, bad.url) as run:
        for camera in (good, bad):
            run.first(10, source=camera.url, type="frame")

        def share(seconds: float) -> float:
            """Return which share of the frames of the good camera is scored."""
            begun = time.time()
            time.sleep(seconds)
            ended = time.time()
            scored = len(run.seen(begun, ended, source=good.url, type="frame"))
            return scored / sum(begun <= sent < ended for sent in good.sent)

        both = share(5)
        bad.stop()
        hung = share(8)
        bad.kill()
        dead = share(5)
        assert run.seen(source=bad.url, type="state", state="lost")
        assert not run.seen(source=good.url, type="state", state="lost")
        code, _ = run.ends(5, interrupt=True)
    measured(f"of the other's frames {both:.1%} were scored, {hung:.1%} when one hung, {dead:.1%} when it was dead")
    assert code == 130
    assert min(hung, dead) >= 0.95 * both >= 0.9
