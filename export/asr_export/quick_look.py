"""When a look at the whole picture may stop early: learned on one half of labelled pictures, judged on the other.

Windows of one picture agree more or less. Their mean after k of n windows differs from the final mean by about
spread * sqrt(1/k - 1/n), where spread is the deviation of margins within a picture. A quick look stops where the mean
is further than `width` times that beyond a threshold of the verdict. The smallest width is taken that changes fewer
verdicts than re-encoding the pictures at JPEG 96 does, which nobody sees, and turns no more of them around.

At least two windows are scored: one may lie on a part unlike the rest, and most verdicts that a quick look turned
around had stopped at the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_export.precision_gate import Images, jpeg_copy, labelled_halves
from asr_runtime import Detector, read_image
from asr_runtime.contract import CARD_KEY, ModelCard, Verdict, WholeLook
from asr_runtime.errors import ConfigurationError, GateError
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole

__all__ = ["QuickLook", "add_quick_look", "learn_stops"]

_WIDTHS = np.arange(0.0, 3.01, 0.1)
_FEWEST = 2  # windows
_NEVER = 1e6  # a margin that no window has
_SHARE_OF_NOISE = 0.5  # of the verdicts that JPEG 96 changes, on the half that is learned from


@dataclass(frozen=True)
class QuickLook:
    """What quick looks cost and change, on pictures that the stops were not learned from.

    Attributes:
        pictures: how many.
        windows: mean share of the windows that were looked at.
        changed: share of the verdicts that differ from those of a whole look.
        changed_by_jpeg96: share of the verdicts of whole looks that re-encoding at JPEG 96 changes.
        flips: verdicts that went from `real` to `ai` or back.
        flips_by_jpeg96: verdicts of whole looks that JPEG 96 turned around in the same way.
    """

    pictures: int
    windows: float
    changed: float
    changed_by_jpeg96: float
    flips: int
    flips_by_jpeg96: int


@dataclass(frozen=True)
class _Picture:
    margins: tuple[float, ...]  # of the windows that hold something to judge
    of_copy: tuple[float, ...]  # the same of its JPEG 96 copy


def add_quick_look(exported: Path, folder: Path, output: Path) -> QuickLook:
    """Write an exported file again with stops for quick looks in its card; the graph stays as it is.

    Args:
        exported: a file of `export`.
        folder: labelled pictures (`precision_gate.labelled_halves`), which training has not seen.
        output: the file to write; may be `exported`.

    Raises:
        ModelError: the file is refused.
        ConfigurationError: too few pictures, or a card without a look at the mean of several windows.
        GateError: quick looks would change too many verdicts; nothing is written.
        OutputError: the file cannot be written.
    """
    card, result = learn_stops(Detector(exported, device="cpu"), *labelled_halves(folder))
    model = onnx.load(exported)
    onnx.helper.set_model_props(model, {CARD_KEY: card.to_json()})
    write_whole(output, model.SerializeToString(), what="model")
    return result


def learn_stops(detector: Detector, learned: Images, judged: Images) -> tuple[ModelCard, QuickLook]:
    """Return the card with stops, and what they cost.

    Args:
        detector: of the file; its card has a whole look that averages all windows.
        learned: pictures that the stops are learned from.
        judged: other pictures.

    Raises:
        ConfigurationError: the card has no such whole look.
        GateError: quick looks change more verdicts than JPEG 96, or turn more of them around.
    """
    card, whole = detector.card, detector.card.whole
    if whole is None or whole.top < len(whole.windows):
        raise ConfigurationError(f"quick look: the card of {card.name} has no look at the mean of several windows")
    first = _pictures(detector, learned.paths, "pictures to learn from")
    noise = _measure(whole, first).changed_by_jpeg96
    for width in _WIDTHS:
        quick = replace(whole, stops=_stops(whole, first, float(width)))
        figures = _measure(quick, first)
        if figures.flips == 0 and figures.changed <= _SHARE_OF_NOISE * noise:
            break
    result = _measure(quick, _pictures(detector, judged.paths, "pictures to judge by"))
    if result.flips > result.flips_by_jpeg96 or result.changed > result.changed_by_jpeg96:
        raise GateError(
            f"quick look: changes {result.changed:.1%} of the verdicts and turns {result.flips} around, where JPEG 96 "
            f"changes {result.changed_by_jpeg96:.1%} and turns {result.flips_by_jpeg96} around; expected no more than "
            "that: more pictures may help"
        )
    return replace(card, whole=quick, metrics={**card.metrics, "quick look": asdict(result)}), result


def _stops(whole: WholeLook, pictures: Sequence[_Picture], width: float) -> tuple[tuple[float, float], ...]:
    spread = math.sqrt(np.mean([np.var(p.margins, ddof=1) for p in pictures if len(p.margins) > 1]))
    low, high = (_margin_at(whole, p) for p in (whole.decision.real_below, whole.decision.ai_from))
    count = len(whole.windows)
    distances = [_NEVER if k < _FEWEST else width * spread * math.sqrt(1 / k - 1 / count) for k in range(1, count)]
    return tuple((low - distance, high + distance) for distance in distances)


def _margin_at(whole: WholeLook, probability: float) -> float:
    """Return the mean margin that gives a probability."""
    log_odds = math.log(probability / (1 - probability))
    return (log_odds - whole.calibration.shift) * whole.calibration.temperature


def _measure(whole: WholeLook, pictures: Sequence[_Picture]) -> QuickLook:
    before = [_verdict(whole, p.margins) for p in pictures]
    copies = [_verdict(whole, p.of_copy) for p in pictures]
    looked = [_looked(whole, p.margins) for p in pictures]
    after = [_verdict(whole, p.margins[:count]) for p, count in zip(pictures, looked, strict=True)]
    return QuickLook(
        pictures=len(pictures),
        windows=sum(looked) / sum(len(p.margins) for p in pictures),
        changed=_changed(before, after),
        changed_by_jpeg96=_changed(before, copies),
        flips=_flips(before, after),
        flips_by_jpeg96=_flips(before, copies),
    )


def _changed(before: Sequence[Verdict], after: Sequence[Verdict]) -> float:
    return float(np.mean([a != b for a, b in zip(before, after, strict=True)]))


def _flips(before: Sequence[Verdict], after: Sequence[Verdict]) -> int:
    return sum({a, b} == {"real", "ai"} for a, b in zip(before, after, strict=True))


def _looked(whole: WholeLook, margins: Sequence[float]) -> int:
    return next((k for k in range(1, len(margins)) if whole.stops_at(margins[:k])), len(margins))


def _verdict(whole: WholeLook, margins: Sequence[float]) -> Verdict:
    return whole.decision.verdict(whole.calibration.probability(whole.margin(margins)))


def _pictures(detector: Detector, paths: Sequence[Path], title: str) -> list[_Picture]:
    """Score every window of the pictures that have room for several, and of their copies."""
    pictures = []
    for path in progress_bar(paths, title):
        image = read_image(path)
        margins, of_copy = (_margins(detector, i) for i in (image, jpeg_copy(image)))
        if len(margins) > 1 and of_copy:
            pictures.append(_Picture(margins, of_copy))
    return pictures


def _margins(detector: Detector, image: NDArray[np.uint8]) -> tuple[float, ...]:
    whole, size = detector.card.whole, detector.card.preprocess.size
    assert whole is not None
    scores = [
        detector(image[row : row + size, column : column + size])
        for row, column in whole.corners(image.shape[0], image.shape[1], size)
    ]
    return tuple(float(s.logits[0, 1] - s.logits[0, 0]) for s in scores if s.reasons[0] is None)
