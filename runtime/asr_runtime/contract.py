"""The facts that travel with a model: written by training and export, read by the runtime.

Frozen dataclasses and their JSON; nothing heavier than NumPy. The JSON of a `ModelCard` is stored in the ONNX file
under `metadata_props["asr.card"]`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from asr_runtime.dataclass_json import from_dict
from asr_runtime.errors import ModelError

__all__ = [
    "CARD_KEY",
    "CARD_SCHEMA",
    "CLASSES",
    "Calibration",
    "Decision",
    "ModelCard",
    "OperatingPoint",
    "Preprocess",
    "Verdict",
    "VideoRule",
    "WholeLook",
    "from_checkpoint",
    "sigmoid",
]

CARD_KEY = "asr.card"
CARD_SCHEMA = 1
CLASSES = ("real", "ai")
"""Order of the two logits; the label of an image is its index here (0 = real, 1 = AI-generated)."""

_LARGEST_SIDE = 4096
"""Of a network's input, and of a shorter side that is resized, in pixels: the runtime makes frames of that size."""

Verdict = Literal["real", "ai", "unsure"]
T = TypeVar("T")


@dataclass(frozen=True)
class Preprocess:
    """How a uint8 BGR frame of any size becomes the network's input.

    Attributes:
        mode: `crop` cuts the centre `size` x `size` at native resolution; a side that is shorter is continued by
            mirroring. `resize-crop` first resizes the shorter side to `resize` (antialiased bilinear). `squash`
            resizes both sides to `size`, whatever the aspect.
        size: side of the network's input, in pixels.
        resize: length of the shorter side before the crop; used by `resize-crop` only, otherwise None.
        mean: subtracted from RGB in [0, 1].
        std: divides after the subtraction.
    """

    mode: Literal["crop", "resize-crop", "squash"]
    size: int
    resize: int | None = None
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.mode not in ("crop", "resize-crop", "squash"):
            raise ValueError(f"preprocess mode {self.mode!r}: expected crop, resize-crop or squash")
        if not 1 <= self.size <= _LARGEST_SIDE or (self.resize or 0) > _LARGEST_SIDE:
            given = f"size {self.size}" if self.resize is None else f"size {self.size}, resize {self.resize}"
            raise ValueError(f"preprocess {given}: expected 1 to {_LARGEST_SIDE} pixels")
        if (self.mode == "resize-crop") != (self.resize is not None):
            raise ValueError("preprocess: `resize` belongs to mode resize-crop, and that mode needs it")
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"preprocess: resize {self.resize} is smaller than the crop {self.size}")


@dataclass(frozen=True)
class Calibration:
    """probability = sigmoid(margin / temperature + shift), and the data that temperature and shift were fitted on.

    The margin of an image is logit_ai - logit_real; for that of a video see `VideoRule`.
    """

    temperature: float = 1.0
    shift: float = 0.0
    fitted_on: str = "not fitted"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0 and math.isfinite(self.shift)):
            raise ValueError(f"calibration {self.temperature}, {self.shift}: expected temperature > 0, both finite")

    @overload
    def log_odds(self, margin: float) -> float: ...

    @overload
    def log_odds(self, margin: NDArray[np.floating[Any]]) -> NDArray[np.float64]: ...

    def log_odds(self, margin: float | NDArray[np.floating[Any]]) -> float | NDArray[np.float64]:
        """Return margin / temperature + shift of a number or an array; infinite where it overflows."""
        with np.errstate(over="ignore"):
            scaled = np.asarray(margin, dtype=np.float64) / self.temperature + self.shift
        return float(scaled) if np.ndim(margin) == 0 else scaled

    @overload
    def probability(self, margin: float) -> float: ...

    @overload
    def probability(self, margin: NDArray[np.floating[Any]]) -> NDArray[np.float64]: ...

    def probability(self, margin: float | NDArray[np.floating[Any]]) -> float | NDArray[np.float64]:
        """Return the calibrated probability, in [0, 1], of one margin or of an array of any shape.

        It is numerically stable for any margin and temperature: nothing overflows, and small probabilities are exact.
        """
        return sigmoid(self.log_odds(margin))


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold of the probability, and the rates that it had on the calibration split, 0..1."""

    false_positive_rate: float
    threshold: float
    true_positive_rate: float

    def __post_init__(self) -> None:
        if not all(
            0.0 <= value <= 1.0 for value in (self.false_positive_rate, self.threshold, self.true_positive_rate)
        ):
            raise ValueError(f"operating point: expected rates and threshold from 0 to 1, got {self}")


@dataclass(frozen=True)
class Decision:
    """The decision rule: below `real_below` the verdict is real, from `ai_from` on it is ai, between them unsure.

    The unsure band always contains 0.5, so a picture that is more likely real than generated is never called ai.
    """

    real_below: float = 0.4
    ai_from: float = 0.6
    rule: str = "0.4 to 0.6 is unsure, not calibrated"

    def __post_init__(self) -> None:
        if not 0.0 <= self.real_below <= self.ai_from <= 1.0:
            raise ValueError(f"decision: expected 0 <= real_below <= ai_from <= 1, got {self}")
        if not self.real_below <= 0.5 < self.ai_from:
            raise ValueError(
                f"decision: thresholds {self.real_below:g} and {self.ai_from:g} contradict the probabilities, expected "
                "real_below <= 0.5 < ai_from; train again with this version's asr-train"
            )

    def verdict(self, probability: float) -> Verdict:
        """Name the verdict of one calibrated probability."""
        if probability >= self.ai_from:
            return "ai"
        return "real" if probability < self.real_below else "unsure"


@dataclass(frozen=True)
class VideoRule:
    """How the frames of a video become the verdict on the whole video.

    Attributes:
        calibration: its margin is the mean, over all scored frames, of log(p / (1 - p)), p the probability of each.
        decision: from the probability of the video to its verdict.
    """

    calibration: Calibration
    decision: Decision


@dataclass(frozen=True)
class WholeLook:
    """How several windows of one picture become its verdict, when the whole picture is looked at.

    A window is `preprocess.size` pixels square, cut at native resolution; each gives the margin logit_ai - logit_real.
    The probability of the picture is sigmoid(m / temperature + shift), where m is the mean of the `top` largest
    margins. A picture that has room for the centre only is judged by the centre's own calibration and decision.

    Attributes:
        windows: (vertical, horizontal) place of each window, as a fraction 0..1 of the room that the picture leaves
            (height - size, width - size); (0.5, 0.5) is the centre and stands first. Places that fall on the same
            pixels count once.
        top: number of windows that are averaged: those with the largest margins; all where a picture has fewer.
        calibration: its margin is that average.
        decision: from the probability of the whole picture to its verdict.
        operating_points: a threshold for each promised false-positive rate, lowest rate first.
        stops: for a quick look. After k windows (k = 1, 2, ...) it ends where the mean of their margins is at most the
            first, or at least the second number of stop k. Empty: the card allows no quick look.
        is_default: `asr-screen` looks at the whole picture unless it is asked for the centre.
        video: calibration and decision for whole videos all of whose frames are looked at as a whole; None: the card
            has no figures for that, and videos and cameras are looked at in the centre unless asked otherwise.
    """

    windows: tuple[tuple[float, float], ...]
    top: int
    calibration: Calibration
    decision: Decision
    operating_points: tuple[OperatingPoint, ...]
    is_default: bool
    video: VideoRule | None = None
    stops: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.windows or self.windows[0] != (0.5, 0.5):
            raise ValueError(f"whole look: expected the centre (0.5, 0.5) as the first window, got {self.windows[:1]}")
        if not all(0.0 <= place <= 1.0 for window in self.windows for place in window):
            raise ValueError("whole look: expected places from 0 to 1")
        if not 1 <= self.top <= len(self.windows):
            raise ValueError(f"whole look: top {self.top}, expected 1 to {len(self.windows)}")
        if self.stops and self.top < len(self.windows):
            raise ValueError("whole look: stops belong to the mean of all windows, not of the largest margins")
        if not all(below < above for below, above in self.stops):
            raise ValueError("whole look: each stop takes two margins, the lower one first")

    def corners(self, height: int, width: int, size: int) -> list[tuple[int, int]]:
        """Return the upper left pixel (row, column) of every window of a picture.

        Args:
            height: of the picture, in pixels.
            width: of the picture, in pixels.
            size: side of a window (`preprocess.size`). A side of the picture that is shorter is taken whole; the
                graph continues it by mirroring.

        Returns:
            One corner for each different window, in the order of `windows`; the centre first.
        """
        down, right = max(0, height - size), max(0, width - size)
        return list(dict.fromkeys((math.floor(row * down), math.floor(column * right)) for row, column in self.windows))

    def stops_at(self, margins: Sequence[float]) -> bool:
        """Return whether a quick look ends after windows with these margins."""
        if not 1 <= len(margins) <= len(self.stops):
            return False
        below, above = self.stops[len(margins) - 1]
        return not below < self.margin(margins) < above

    def margin(self, margins: Sequence[float]) -> float:
        """Return the mean of the `top` largest of the windows' margins."""
        largest = sorted(margins, reverse=True)[: self.top]
        return math.fsum(largest) / len(largest)


@dataclass(frozen=True)
class ModelCard:
    """Everything that a device or a reviewer needs to know about an exported file.

    Attributes:
        name: registry name of the network, `asrnet` for one.
        options: constructor options of the network.
        preprocess: from frame to network input; part of the graph, repeated here for readers.
        calibration: from logits to probability; part of the graph as well.
        decision: from probability to verdict; applied by the runtime.
        operating_points: thresholds per promised false-positive rate, lowest rate first.
        video: calibration and decision for whole videos; None: pooled log-odds are judged like those of an image.
        whole: several windows of a picture instead of its centre alone; None: the card has no figures for that.
        training: summary of the data and the recipe.
        metrics: results, each under a key that names its test set and protocol.
        checkpoint_sha256: of the checkpoint file the graph was made from.
        tool_versions: of the packages that made the file.
        fft: how Fourier transforms are written in the graph.
        precision: number format of the weights.
        parity: largest differences to PyTorch, measured when the file was written.
    """

    name: str
    options: Mapping[str, Any]
    preprocess: Preprocess
    calibration: Calibration
    decision: Decision
    operating_points: tuple[OperatingPoint, ...]
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    checkpoint_sha256: str
    tool_versions: Mapping[str, str]
    fft: Literal["matmul", "dft"]
    precision: Literal["fp32", "int8"]
    parity: Mapping[str, Any] = field(default_factory=dict)
    video: VideoRule | None = None
    whole: WholeLook | None = None
    classes: tuple[str, str] = CLASSES
    schema: int = CARD_SCHEMA

    def __post_init__(self) -> None:
        if tuple(self.classes) != CLASSES:
            raise ValueError(f"classes {list(self.classes)}: expected {list(CLASSES)}")
        if self.whole is not None and self.preprocess.mode != "crop":
            raise ValueError(f"whole look: windows need preprocess mode crop, and this is {self.preprocess.mode}")

    def to_json(self) -> str:
        """Return the card as one line of strict JSON (no NaN)."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read and validate a card.

        Raises:
            ModelError: not JSON, unknown schema, or a field that is missing, unknown, of another type or range.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"model card: not valid JSON ({error})") from None
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != CARD_SCHEMA:
            raise ModelError(
                f"model card: schema {schema!r}, this version reads {CARD_SCHEMA}; "
                "export the checkpoint again with this version's asr-export"
            )
        try:
            return from_dict(cls, data)
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(f"model card: {error}") from None


@overload
def sigmoid(log_odds: float) -> float: ...


@overload
def sigmoid(log_odds: NDArray[np.floating[Any]]) -> NDArray[np.float64]: ...


def sigmoid(log_odds: float | NDArray[np.floating[Any]]) -> float | NDArray[np.float64]:
    """Return the probability 1 / (1 + exp(-log_odds)) of a number or an array; it never overflows, and keeps NaN."""
    z = np.asarray(log_odds, dtype=np.float64)
    small = np.exp(-np.abs(z))  # in [0, 1]
    probability = np.where(z < 0, small, 1.0) / (1.0 + small)
    return float(probability) if np.ndim(log_odds) == 0 else probability


def from_checkpoint(cls: type[T], data: Mapping[str, Any], checkpoint: str) -> T:
    """Build one of this module's dataclasses from the plain data of a checkpoint, as `dataclass_json.from_dict` does.

    Raises:
        ModelError: the data are refused; the message names the checkpoint.
    """
    try:
        return from_dict(cls, data)
    except (TypeError, ValueError) as error:
        raise ModelError(f"checkpoint {checkpoint}: {error}") from None
