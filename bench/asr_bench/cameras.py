"""Watches many RTSP cameras on this machine and measures the rate, the age of frames and what is lost.

    python -m asr_bench.cameras --cameras 16 --fps 1 --seconds 30 --key-frames

Cameras of 1920 x 1080 pixels, 25 frames, one key frame and 4 Mbit a second, on loopback. They send a clip that is
encoded once, so they take little of the processor. Needs ffmpeg, and GStreamer's RTSP server for the system's python3
(Debian: gir1.2-gst-rtsp-server-1.0, python3-gst-1.0, gstreamer1.0-plugins-good, gstreamer1.0-plugins-bad).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime import Detector, FrameRecord, SummaryRecord, screen
from asr_runtime.command import command
from asr_runtime.errors import ConfigurationError
from asr_runtime.records import StateRecord

__all__ = ["CameraLoad", "watch"]

_SYSTEM_PYTHON = "/usr/bin/python3"
_SETTLE = 5.0  # seconds in which all cameras connect; what they give then does not count


@dataclass(frozen=True)
class CameraLoad:
    """The figures of one run.

    Attributes:
        rates: scored frames per second of each camera.
        ages: seconds from reception to score, of every frame.
        dropped: frames given up for newer ones.
        troubles: states other than connecting and live, how often.
        cores: processor seconds a second that this process took.
    """

    rates: tuple[float, ...]
    ages: tuple[float, ...]
    dropped: int
    troubles: dict[str, int]
    cores: float

    def figures(self) -> list[Figure]:
        """Return age, rate, losses and load; no age where no frame was scored."""
        of = f"{len(self.rates)} RTSP cameras"
        ages = (float(np.percentile(self.ages, 99)),) if self.ages else ()
        return [
            *(Figure(f"{of}: age of a frame, p99", "s", False, (age,)) for age in ages),
            Figure(f"{of}: frames a second of the slowest", "1/s", True, (min(self.rates),)),
            Figure(f"{of}: frames dropped", "frames", False, (float(self.dropped),)),
            Figure(f"{of}: cores", "cores", False, (self.cores,)),
        ]

    def line(self) -> str:
        """Return the figures in one line."""
        p50, p99 = np.percentile(self.ages, [50, 99]) if self.ages else (float("nan"), float("nan"))
        troubles = ", ".join(f"{count} {state}" for state, count in self.troubles.items()) or "none stalled or lost"
        rates = f"{min(self.rates):.2f} to {max(self.rates):.2f}" if self.rates else "0"
        return (
            f"{len(self.rates)} cameras: {rates} frames/s each; age p50 {p50:.3f} s, p99 {p99:.3f} s; "
            f"{self.dropped} dropped; {troubles}; {self.cores:.2f} cores"
        )


def watch(urls: list[str], detector: Detector, fps: float, seconds: float, *, key_frames: bool) -> CameraLoad:
    """Screen live sources for some time.

    Args:
        urls: of the cameras.
        detector: scores their frames.
        fps: frames to score per second of each.
        seconds: after the time in which they connect.
        key_frames: decode key frames only.
    """
    frames: Counter[str] = Counter(dict.fromkeys(urls, 0))
    ages: list[float] = []
    troubles: Counter[str] = Counter()
    dropped, started, used = 0, time.monotonic(), 0.0
    for record in screen(urls, detector, fps=fps, duration=_SETTLE + seconds, key_frames=key_frames):
        if time.monotonic() - started < _SETTLE:
            used = time.process_time()
        elif isinstance(record, FrameRecord) and record.age is not None:
            frames[record.source] += 1
            ages.append(record.age)
            dropped += record.dropped
        elif isinstance(record, StateRecord) and record.state not in ("connecting", "live"):
            troubles[record.state] += 1
        elif isinstance(record, SummaryRecord):
            break
    rates = tuple(frames[url] / seconds for url in urls)
    return CameraLoad(rates, tuple(ages), dropped, dict(troubles), (time.process_time() - used) / seconds)


def _clip(path: Path, seconds: float) -> None:
    """Encode one second of changing pictures, and repeat it."""
    source = "testsrc2=s=1920x1080:r=25,noise=alls=8:allf=t"
    short = path.with_name("second.mp4")
    encode = ["-f", "lavfi", "-i", source, "-t", "2", "-c:v", "libx264", "-preset", "veryfast", "-g", "25", "-bf", "0"]
    encode += ["-b:v", "4M", "-maxrate", "4M", "-bufsize", "4M"]
    repeat = ["-stream_loop", str(int(seconds / 2) + 1), "-i", str(short), "-c", "copy"]
    for arguments, output in (([*encode, "-pix_fmt", "yuv420p"], short), (repeat, path)):
        subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments, str(output)], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@command("python -m asr_bench.cameras")
@click.option("--cameras", type=click.IntRange(min=1), default=16)
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Frames to score of each.")
@click.option("--seconds", type=click.FloatRange(min=1), default=30.0)
@click.option("--key-frames", is_flag=True, help="Decode key frames only.")
@click.option("--model", default="asrnet-lite-tiny")
@figures_option
def main(cameras: int, fps: float, seconds: float, key_frames: bool, model: str, output: Path | None) -> None:
    """Watch many RTSP cameras on this machine and print rates, ages and losses."""
    detector = Detector(model, device="cpu", threads=1)
    with tempfile.TemporaryDirectory() as folder:
        clip, port = Path(folder, "clip.mp4"), _free_port()
        try:
            _clip(clip, seconds + 3 * _SETTLE)
            server = Path(__file__).with_name("rtsp_cameras.py")
            line = [_SYSTEM_PYTHON, str(server), str(port), str(cameras), str(clip)]
            with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                if process.stdout.readline() != b"ready\n":
                    reason = process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise ConfigurationError(f"no RTSP server: {' '.join(reason)}; see the top of asr_bench/cameras.py")
                urls = [f"rtsp://127.0.0.1:{port}/{number}" for number in range(cameras)]
                try:
                    load = watch(urls, detector, fps, seconds, key_frames=key_frames)
                    click.echo(load.line())
                    if output is not None:
                        write_figures([load], output)
                finally:
                    process.kill()
        except FileNotFoundError as error:
            raise ConfigurationError(
                f"{error.filename} is not installed; see the top of asr_bench/cameras.py"
            ) from None
    sys.stdout.flush()
    os._exit(0)  # a reading thread may be inside OpenCV, and taking the interpreter down around it can crash


if __name__ == "__main__":
    main()
