"""Screen images, videos and live cameras with an exported detector: decode, detect, decide, report. Needs no PyTorch.

    from asr_runtime import Detector, read_image

    detector = Detector()  # the model inside the package; or the path of an .onnx file
    scores = detector(read_image("photo.jpg"))
    print(scores.probability[0], scores.verdicts[0])

Names are loaded on first use, so importing `asr_runtime.contract` alone loads neither OpenCV nor onnxruntime.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# OpenCV reads these once, when cv2 is imported, so they stand before every module that does. A PNG of 2.6 MB
# can ask for 5 GB: 2^28 pixels (800 MB decoded) still hold the largest sensors sold. What is set
# before is left as it is.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
# Without this a camera that does not answer makes every other one wait to be opened.
os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")

# Nothing leaves the device: usage reports of our libraries are off before any of them is imported, in this process and
# in those that it starts. Our other packages import this one first. Variables that are set are left alone.
# docs/privacy.md says what each of them would send.
for _variable, _value in {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime from 1.32: a device id, and facts on the process and the model
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub and what is built on it
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_ERROR_REPORTING": "false",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "SCARF_NO_ANALYTICS": "true",
    "DO_NOT_TRACK": "1",  # what many others ask for (https://consoledonottrack.com)
}.items():
    os.environ.setdefault(_variable, _value)
# OpenVINO has no such variable. Without this package it uses a stub of its own, which sends nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from asr_runtime.contract import ModelCard
    from asr_runtime.doctor import examine
    from asr_runtime.inference.detector import Detector, Scores
    from asr_runtime.media.image import decode_image, read_image
    from asr_runtime.media.video import VideoFile, VideoFrame
    from asr_runtime.records import (
        ErrorRecord,
        FrameRecord,
        ImageRecord,
        Record,
        SegmentRecord,
        StateRecord,
        SummaryRecord,
        VideoRecord,
    )
    from asr_runtime.screening.screen import screen
    from asr_runtime.sources.live import LiveSource, named_sources

__all__ = [
    "Detector",
    "ErrorRecord",
    "FrameRecord",
    "ImageRecord",
    "LiveSource",
    "ModelCard",
    "Record",
    "Scores",
    "SegmentRecord",
    "StateRecord",
    "SummaryRecord",
    "VideoFile",
    "VideoFrame",
    "VideoRecord",
    "decode_image",
    "examine",
    "named_sources",
    "read_image",
    "screen",
]

_HOME = {
    "Detector": "inference.detector",
    "ErrorRecord": "records",
    "FrameRecord": "records",
    "ImageRecord": "records",
    "LiveSource": "sources.live",
    "ModelCard": "contract",
    "Record": "records",
    "Scores": "inference.detector",
    "SegmentRecord": "records",
    "StateRecord": "records",
    "SummaryRecord": "records",
    "VideoFile": "media.video",
    "VideoFrame": "media.video",
    "VideoRecord": "records",
    "decode_image": "media.image",
    "examine": "doctor",
    "named_sources": "sources.live",
    "read_image": "media.image",
    "screen": "screening.screen",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"asr_runtime.{_HOME[name]}"), name)
    globals()[name] = value
    return value
