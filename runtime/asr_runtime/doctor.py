"""What works on this machine: each thing is tried, not looked up."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.streams import open_stream
from asr_runtime.errors import AsrError
from asr_runtime.inference.cuda_versions import misfit, read_cuda_versions
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.onnxruntime_engine import PROVIDERS, import_onnxruntime
from asr_runtime.inference.openvino_engine import has_native_bf16, openvino_version
from asr_runtime.isolation.files import IsolatedDecoder
from asr_runtime.machine import package_version
from asr_runtime.media.image import decode_image
from asr_runtime.media.video import VideoFile
from asr_runtime.sources.expand import Source

__all__ = ["Check", "Examination", "examine"]

CLIPS = {
    "H.264": "h264.mp4",
    "HEVC": "hevc.mp4",
    "VP8": "vp8.webm",
    "VP9": "vp9.webm",
    "AV1": "av1.webm",
    "MPEG-2": "mpeg2.mkv",
    "MPEG-4": "mpeg4.mp4",
    "MJPEG": "mjpeg.avi",
}
"""Codec -> clip in the package: five frames of a test pattern, 64 x 64."""

_SUFFIXES = {
    **{"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp", "TIFF": ".tiff", "AVIF": ".avif", "GIF": ".gif"},
    **{"JPEG 2000": ".jp2", "PNM": ".ppm", "PAM": ".pam", "PFM": ".pfm", "Radiance HDR": ".hdr", "Sun raster": ".ras"},
}
"""Format -> suffix by which OpenCV writes it."""
_WORST = {"GIF": 24}  # levels that decoded pixels may be off; a GIF has 256 colours
_HEIC_ADVICE = "pillow_heif is not installed: pip install 'asrnet-edge[heic]'"
_NEEDED = frozenset({"packages onnxruntime", "device cpu", "image JPEG", "image PNG", "video H.264"})
_TIMED_RUNS = 10
_CLIP_FRAMES = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    Attributes:
        group: `packages`, `device`, `image`, `video` or `live`.
        name: within the group.
        ok: it worked.
        needed: asr-screen cannot do its work without it.
        detail: one line: the result, or why the check failed.
    """

    group: str
    name: str
    ok: bool
    needed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Examination:
    """The results of all checks.

    Attributes:
        versions: of Python, the system and the packages; `not installed` where one is missing.
        model: name, sha256, network, provider and median ms per image of the model; empty when none loads.
        checks: every single try.
    """

    versions: dict[str, str]
    model: dict[str, Any]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that asr-screen needs works."""
        return all(check.ok for check in self.checks if check.needed)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "ok": self.ok,
            "versions": self.versions,
            "model": self.model,
            "checks": [asdict(check) for check in self.checks],
        }


def examine(model: str | os.PathLike[str] | None = None) -> Examination:
    """Try everything that screening needs.

    Args:
        model: an exported file or built-in name; None: the default model.

    Returns:
        The results. Something that does not work is a result, never an exception.
    """
    devices, model_facts = _devices(model)
    checks = (*_packages(), *_cuda(), *devices, *_images(), *_videos(), *_live())
    return Examination(_versions(), model_facts, checks)


def _check(group: str, name: str, problem: str | None, detail: str) -> Check:
    needed = f"{group} {name}" in _NEEDED
    return Check(group, name, problem is None, needed, " ".join((problem or detail).split()))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "system": platform.platform()}
    for name in (
        "asrnet-edge",
        "numpy",
        "opencv-python",
        "onnxruntime",
        "onnxruntime-gpu",
        "openvino",
        "click",
        "rich",
    ):
        versions[name] = package_version(name) or "not installed"
    versions["cv2"] = str(cv2.__version__)
    return versions


def _packages() -> Iterator[Check]:
    try:
        yield _check("packages", "onnxruntime", None, f"{import_onnxruntime().__version__}")
    except AsrError as error:
        yield _check("packages", "onnxruntime", str(error), "")
    try:
        bf16 = "computed" if has_native_bf16() else "emulated, which is slow,"
        yield _check("packages", "openvino", None, f"{openvino_version()}, bf16 is {bf16} on this processor")
    except AsrError as error:
        yield _check("packages", "openvino", str(error), "")


def _cuda() -> Iterator[Check]:
    """Compare versions where onnxruntime-gpu is installed: why no session starts on CUDA often lies there."""
    versions = read_cuda_versions()
    if versions.onnxruntime_gpu is not None:
        fits = f"onnxruntime-gpu {versions.onnxruntime_gpu}, CUDA {versions.cuda}, cuDNN {versions.cudnn} work together"
        yield _check("packages", "cuda", misfit(versions), f"{fits}; the driver runs CUDA {versions.driver}")


def _devices(model: str | os.PathLike[str] | None) -> tuple[list[Check], dict[str, Any]]:
    """Start a session on every device and run it; the model's facts come from the CPU."""
    checks: list[Check] = []
    model_facts: dict[str, Any] = {}
    for device, providers in PROVIDERS.items():
        try:
            detector = Detector(model, device=device)
            milliseconds = _median_ms(detector)
        except AsrError as error:
            checks.append(_check("device", device, str(error), ""))
            continue
        checks.append(_check("device", device, None, f"{providers[0]} runs, {milliseconds:.1f} ms per image"))
        if not model_facts:
            model_facts = {
                "name": detector.name,
                "sha256": detector.sha256,
                "network": detector.card.name,
                "provider": detector.provider,
                "ms_per_image": round(milliseconds, 3),
            }
    return checks, model_facts


def _median_ms(detector: Detector) -> float:
    side = detector.card.preprocess.resize or detector.card.preprocess.size
    frame = np.full((1, side, side, 3), 127, np.uint8)
    samples = []
    for _ in range(_TIMED_RUNS):
        started = time.perf_counter()
        detector(frame)
        samples.append((time.perf_counter() - started) * 1000)
    return statistics.median(samples)


def _images() -> Iterator[Check]:
    """Encode a smooth picture, decode it, and compare: a decoder that is there but wrong fails as well."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    layers = [np.tile(ramp, (48, 1)), np.tile(ramp[::-1], (48, 1)), np.full((48, 64), 90)]
    picture = np.stack(layers, axis=2).astype(np.uint8)
    for name, encode in {**{name: _with_opencv(suffix) for name, suffix in _SUFFIXES.items()}, **_OTHERS}.items():
        try:
            decoded = decode_image(encode(picture), f"a {name} image")
            error = float(np.abs(decoded.astype(float) - picture).mean())
            problem = None if error < _WORST.get(name, 8) else f"decoded pixels are {error:.0f} levels off"
        except (AsrError, ValueError, cv2.error, RuntimeError, OSError, ImportError) as failure:
            problem = _HEIC_ADVICE if isinstance(failure, ImportError) else str(failure)
        yield _check("image", name, problem, "decoded as encoded")


def _with_opencv(suffix: str) -> Callable[[NDArray[np.uint8]], bytes]:
    def encode(picture: NDArray[np.uint8]) -> bytes:
        pixels = picture / np.float32(255) if suffix in (".pfm", ".hdr") else picture
        written, data = cv2.imencode(suffix, pixels)
        if not written:
            raise ValueError("this OpenCV cannot encode it")
        return data.tobytes()

    return encode


def _stereo(picture: NDArray[np.uint8]) -> bytes:
    """Return two JPEG pictures in one file; the first is the one that counts."""
    encode = _with_opencv(".jpg")
    return encode(picture) + encode(255 - picture)


def _heic(picture: NDArray[np.uint8]) -> bytes:
    import pillow_heif

    file = io.BytesIO()
    height, width = picture.shape[:2]
    pillow_heif.from_bytes("RGB", (width, height), np.ascontiguousarray(picture[..., ::-1]).tobytes()).save(file)
    return file.getvalue()


def _deep(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture.astype(np.uint16) * 257)[1].tobytes()


_OTHERS = {"MPO": _stereo, "HEIC": _heic, "PNG, 16 bits": _deep}


def _videos() -> Iterator[Check]:
    for codec, name in CLIPS.items():
        try:
            frames = list(VideoFile(Path(__file__).parent / "clips" / name))
            good = len(frames) == _CLIP_FRAMES and all(
                f.image.shape == (64, 64, 3) and f.image.std() > 20 for f in frames
            )
            problem = None if good else f"{len(frames)} of {_CLIP_FRAMES} frames, or without the test pattern"
        except AsrError as error:
            problem = str(error)
        yield _check("video", codec, problem, f"{_CLIP_FRAMES} frames decoded")


def _live() -> Iterator[Check]:
    """Try what only some options need, and the cameras of this machine."""
    for option, module in (("--mqtt", "paho.mqtt.client"), ("--metrics", "prometheus_client")):
        try:
            importlib.import_module(module)
            problem = None
        except ImportError:
            problem = f"{module.partition('.')[0]} is not installed: pip install 'asrnet-edge[live]'"
        yield _check("live", option, problem, f"{module} is there")
    clip = str(Path(__file__).parent / "clips" / CLIPS["H.264"])
    with contextlib.closing(IsolatedDecoder()) as decoder:
        steps = list(decoder.decode(Source(clip, "video"), None))
    problem = next((str(step.error) for step in steps if step.error is not None), None)
    yield _check("live", "--isolate", problem, f"{sum(step.image is not None for step in steps)} frames decoded")
    for path in sorted(Path("/dev").glob("video*")):
        yield _check("live", str(path), _camera_problem(str(path)), "a frame came")


def _camera_problem(path: str) -> str | None:
    try:
        with contextlib.closing(open_stream(path)) as stream:
            stream.grab()
            stream.retrieve()
    except AsrError as error:
        return str(error)
    return None
