"""Tiny deployed models, real images and real clips; nothing here needs the exporter."""

from __future__ import annotations

import dataclasses
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

import asr_runtime
from asr_runtime.contract import CARD_KEY, Calibration, Decision, ModelCard, Preprocess, VideoRule, WholeLook

EXAMPLES = Path(asr_runtime.__file__).parents[1] / "examples"
"""The example pictures and the clip of the repository."""

CARD = ModelCard(
    name="brightness",
    options={},
    preprocess=Preprocess("crop", 64),
    calibration=Calibration(temperature=2.0, shift=0.25, fitted_on="nothing"),
    decision=Decision(real_below=0.4, ai_from=0.6, rule="fixed"),
    operating_points=(),
    training={},
    metrics={},
    checkpoint_sha256="0" * 64,
    tool_versions={},
    fft="matmul",
    precision="fp32",
)
WHOLE = WholeLook(
    windows=((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)),
    top=2,
    calibration=Calibration(temperature=2.0, shift=-0.25, fitted_on="nothing"),
    decision=Decision(real_below=0.3, ai_from=0.6, rule="fixed"),
    operating_points=(),
    is_default=True,
)
WHOLE_CARD = dataclasses.replace(CARD, whole=WHOLE)
WHOLE_VIDEO_CARD = dataclasses.replace(
    CARD,
    whole=dataclasses.replace(WHOLE, video=VideoRule(Calibration(0.5, 0.0, "nothing"), Decision(0.2, 0.8, "fixed"))),
)


def build_model(
    card: ModelCard | str | None = CARD,
    *,
    input_name: str = "frames",
    input_type: int = TensorProto.UINT8,
    input_shape: tuple[Any, ...] = ("N", "H", "W", 3),
    output_name: str = "probability",
    calibration: Calibration = CARD.calibration,
    size: int = CARD.preprocess.size,
    logarithm: bool = False,
    work: int = 0,
    endless: bool = False,
) -> bytes:
    """A deployed graph: logits = [0, 8 (mean brightness of the centre - 0.5)]. Black is real, white is AI.

    The centre is `size` pixels square, or as much of that as a frame has.
    `logarithm` makes black frames -inf; `work` adds that many products of 512 x 512 matrices per frame;
    with `endless` an inference on white frames never ends.
    """

    def constant(name: str, value: Any) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.asarray(value), name)

    f32 = np.float32
    initializers = [
        constant("axes", np.array([1, 2, 3], np.int64)),
        constant("sides", np.array([1, 2], np.int64)),
        constant("size", np.array([size, size], np.int64)),
        constant("two", np.array([2, 2], np.int64)),
        constant("nothing_less", np.array([0, 0], np.int64)),
        constant("column", np.array([1], np.int64)),
        constant("scale", f32(8 / 255)),
        constant("half", f32(4)),
        constant("zero", f32(0)),
        constant("temperature", f32(calibration.temperature)),
        constant("shift", f32(calibration.shift)),
    ]
    nodes = [
        *_centre_crop(input_name),
        helper.make_node("Cast", ["window"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Log" if logarithm else "Identity", ["mean"], ["level"]),
        helper.make_node("Mul", ["level", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "half"], ["centred"]),
    ]
    last = "centred"
    if work:
        initializers.append(constant("matrix", np.full((512, 512), 1e-3, f32)))
        nodes.append(helper.make_node("Mul", ["matrix", "mean"], ["product0"]))
        for i in range(work):
            nodes.append(helper.make_node("MatMul", [f"product{i}", "matrix"], [f"product{i + 1}"]))
        nodes.append(helper.make_node("ReduceMean", [f"product{work}"], ["worked"], keepdims=0))
        nodes.append(helper.make_node("Mul", ["worked", "zero"], ["nothing"]))
        nodes.append(helper.make_node("Add", ["centred", "nothing"], ["ai"]))
        last = "ai"
    if endless:
        initializers += [
            constant("bright", f32(250)),
            constant("many", np.int64(2**62)),
            constant("always", np.bool_(True)),
        ]
        nodes += [
            helper.make_node("ReduceMax", ["mean"], ["brightest"], keepdims=0),
            helper.make_node("Greater", ["brightest", "bright"], ["is_white"]),
            helper.make_node("Cast", ["is_white"], ["white"], to=TensorProto.INT64),
            helper.make_node("Mul", ["white", "many"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "always", last], ["late"], body=_identity_loop()),
        ]
        last = "late"
    nodes += [
        helper.make_node("Mul", [last, "zero"], ["real"]),
        helper.make_node("Unsqueeze", ["real", "column"], ["real_column"]),
        helper.make_node("Unsqueeze", [last, "column"], ["ai_column"]),
        helper.make_node("Concat", ["real_column", "ai_column"], ["logits"], axis=1),
        helper.make_node("Sub", [last, "real"], ["margin"]),
        helper.make_node("Div", ["margin", "temperature"], ["tempered"]),
        helper.make_node("Add", ["tempered", "shift"], ["shifted"]),
        helper.make_node("Sigmoid", ["shifted"], [output_name]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info(input_name, input_type, input_shape)],
        [
            helper.make_tensor_value_info(output_name, TensorProto.FLOAT, [input_shape[0]]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [input_shape[0], 2]),
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    if card is not None:
        text = card if isinstance(card, str) else card.to_json()
        helper.set_model_props(model, {CARD_KEY: text})
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _centre_crop(frames: str) -> list[onnx.NodeProto]:
    """Nodes from frames to `window`."""
    return [
        helper.make_node("Shape", [frames], ["height_width"], start=1, end=3),
        helper.make_node("Sub", ["height_width", "size"], ["room"]),
        helper.make_node("Max", ["room", "nothing_less"], ["margins"]),
        helper.make_node("Div", ["margins", "two"], ["first"]),
        helper.make_node("Add", ["first", "size"], ["last"]),
        helper.make_node("Slice", [frames, "first", "last", "sides"], ["window"]),
    ]


def _identity_loop() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Identity", ["value"], ["same"])],
        "identity",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, ["N"]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.FLOAT, ["N"]),
        ],
    )


def picture(seed: int = 0, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A smooth colour picture, as photos are."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def shade(level: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """A picture of one brightness with the noise that a sensor leaves: without it there is nothing to judge."""
    noise = np.random.default_rng(level).integers(-12, 13, (height, width, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


def bright_corner(height: int = 200, width: int = 260, level: int = 255) -> NDArray[np.uint8]:
    """Dark, but for its lower right quarter: only windows there say ai."""
    image = shade(0, height, width)
    image[height // 2 :, width // 2 :] = shade(level, height - height // 2, width - width // 2)
    return image


def black_png(side: int) -> bytes:
    """A square PNG of one bit a pixel: at 16,000 pixels 30 kB, which decode to 3 bytes a pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side // 8) * side))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(image: NDArray[Any], suffix: str, *parameters: int) -> bytes:
    ok, data = cv2.imencode(suffix, image, parameters)
    assert ok
    return bytes(data.tobytes())


SUFFIXES = {
    **{"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp", "TIFF": ".tiff", "AVIF": ".avif", "GIF": ".gif"},
    **{"JPEG 2000": ".jp2", "PNM": ".ppm", "PAM": ".pam", "PFM": ".pfm", "Radiance HDR": ".hdr"},
}
"""Format -> suffix by which OpenCV writes it."""


def encoded_as(form: str, image: NDArray[np.uint8]) -> bytes:
    """Return a picture in one of the formats of `SUFFIXES`, in floating point where that has nothing else."""
    if form in ("PFM", "Radiance HDR"):
        return encoded((image / 255).astype(np.float32), SUFFIXES[form])
    return encoded(image, SUFFIXES[form])


def stamped(index: int, noise: int = 24) -> NDArray[np.uint8]:
    """A frame whose pixels say its index: ten blocks, bright for 1, with the same noise on every frame."""
    frame = np.random.default_rng(0).integers(0, noise + 1, (64, 160, 3), dtype=np.uint8)
    for bit in range(10):
        if index >> bit & 1:
            frame[:, bit * 16 : bit * 16 + 16] += 255 - noise
    return frame


def read_stamp(image: NDArray[np.uint8]) -> int:
    return sum(1 << bit for bit in range(10) if image[16:48, bit * 16 + 4 : bit * 16 + 12].mean() > 127)


def write_clip(path: Path, frames: int, rate: float = 25.0, codec: str = "MJPG") -> Path:
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, rate, (160, 64))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(stamped(index))
    writer.release()
    return path


Runner = Callable[..., "subprocess.CompletedProcess[bytes]"]


def command_line(command: str, *arguments: object) -> list[str]:
    code = f"from asr_runtime.cli import {command}_command; {command}_command(prog_name='asr-{command}')"
    return [sys.executable, "-c", code, *map(str, arguments)]


def installed_line(command: str, *arguments: object) -> list[str]:
    """Return how any command of the project starts with this Python, wherever its script lies."""
    code = (
        "import sys; from importlib import metadata; sys.argv[0] = sys.argv.pop(1); "
        "[p.load()() for p in metadata.entry_points(group='console_scripts') if p.name == sys.argv[0]]"
    )
    return [sys.executable, "-c", code, command, *map(str, arguments)]


def serve_line(*arguments: object) -> list[str]:
    code = "from asr_runtime.serve.cli import serve_command; serve_command(prog_name='asr-serve')"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Of a device: this package on the path and nothing else of the project."""
    return {**os.environ, "PYTHONPATH": str(Path(asr_runtime.__file__).parents[1])}
