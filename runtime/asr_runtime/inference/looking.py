"""One picture -> its verdict, from the window in its centre or from several windows all over it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import ModelCard, Verdict, WholeLook
from asr_runtime.errors import ConfigurationError, InferenceError
from asr_runtime.windows import LookKind, Window, window_grid

if TYPE_CHECKING:
    from asr_runtime.inference.detector import Scores

__all__ = ["LOOKS", "Look", "LookChoice", "check_windows", "choose_looks", "chosen_look", "look_at", "map_of"]

LookChoice = Literal["auto", "centre", "whole", "quick"]
LOOKS = ("auto", "centre", "whole", "quick")

_CAMERA_SHARE = 0.5  # of the time between two frames of a camera, that whole looks may take
_Score = Callable[[NDArray[np.uint8]], "Scores"]


@dataclass(frozen=True, slots=True)
class Look:
    """The score of one picture.

    Attributes:
        kind: `whole` where several windows were averaged. A picture with room for one window only is scored in its
            centre, whatever was asked for.
        margin: logit_ai - logit_real of the picture, before calibration; of several windows as `WholeLook.margin`.
        probability: calibrated P(AI-generated) of the picture, 0..1.
        verdict: by the decision rule of the card for this kind of look.
        windows: windows that were scored, the centre first.
        reason: why no window has content to judge (`inference.flatness`), so the verdict is `unsure`; None: one has.
    """

    kind: LookKind
    margin: float
    probability: float
    verdict: Verdict
    windows: tuple[Window, ...]
    reason: str | None = None


def chosen_look(card: ModelCard, choice: LookChoice, *, video: bool = False) -> LookKind:
    """Return which part of pictures, or of the frames of videos, is scored.

    Args:
        card: of the model that scores.
        choice: `auto` is `whole` where the card says that it is better, of videos where it has a rule for whole
            videos as well.
        video: the pictures are frames.

    Raises:
        ConfigurationError: an unknown choice, or `whole` or `quick` of a model without figures for it.
    """
    if choice not in LOOKS:
        raise ConfigurationError(f"look {choice!r}: expected one of {', '.join(LOOKS)}")
    whole = card.whole
    if choice == "whole" and whole is None:
        check_windows(card)
        raise ConfigurationError(
            f"look whole: the card of this model ({card.name}) has no calibration for the whole picture; use look "
            "centre, or export a checkpoint that was calibrated for it"
        )
    if choice == "auto":
        is_whole = whole is not None and whole.is_default and (whole.video is not None or not video)
        return "whole" if is_whole else "centre"
    if choice == "quick" and (whole is None or not whole.stops):
        raise ConfigurationError(
            f"look quick: the card of this model ({card.name}) does not say when a look may stop; use look whole or "
            "centre, or add it with asr-export --quick-look"
        )
    return choice


def choose_looks(
    score: _Score, card: ModelCard, choice: LookChoice, fps: float | None, cameras: int
) -> dict[str, LookKind]:
    """Return the look of a run at `images`, at frames of `videos` and at frames of `cameras`.

    `auto` looks at whole frames of cameras only where `fps` is given and one look at each camera takes at most half of
    the time between two frames. This function times one look.

    Args:
        score: a `Detector`.
        card: of the same model.
        choice: `centre` and `whole` apply to all three.
        fps: frames to score per second; None: all, as fast as they come.
        cameras: how many.

    Raises:
        ConfigurationError: as `chosen_look`.
    """
    videos = chosen_look(card, choice, video=True)
    looks: dict[str, LookKind] = {"images": chosen_look(card, choice), "videos": videos, "cameras": videos}
    if choice == "auto" and videos == "whole" and cameras:
        fits = fps is not None and cameras * _seconds_of_a_whole_look(score, card) <= _CAMERA_SHARE / fps
        looks["cameras"] = "whole" if fits else "centre"
    return looks


def check_windows(card: ModelCard) -> None:
    """Refuse a model that resizes pictures instead of cutting windows.

    Raises:
        ConfigurationError: it resizes pictures.
    """
    if card.preprocess.mode != "crop":
        raise ConfigurationError(
            f"windows: this model ({card.name}) resizes every picture (preprocess mode {card.preprocess.mode}) and so "
            "has no windows at native resolution; expected mode crop"
        )


def look_at(score: _Score, card: ModelCard, image: NDArray[np.uint8], kind: LookKind) -> Look:
    """Score one picture.

    The windows are scored one by one: on a CPU a batch is not faster, and needs more memory and time at once. Windows
    without content to judge have no weight if another window has content.

    Args:
        score: a `Detector`.
        card: of the same model.
        image: uint8 BGR `(H, W, 3)`.
        kind: as `chosen_look` returns it. `quick` stops after the first windows that decide.
    """
    size = card.preprocess.size
    height, width = image.shape[:2]
    corners = card.whole.corners(height, width, size) if kind != "centre" and card.whole is not None else []
    if card.whole is None or len(corners) < 2:
        scores = score(image)
        probability = float(scores.probability[0])
        margin = _margin(scores)
        centre = Window(max(0, width - size) // 2, max(0, height - size) // 2, size, probability)
        return Look("centre", margin, probability, scores.verdicts[0], (centre,), scores.reasons[0])
    windows, margins, reasons = _score_windows(score, image, corners, size, card.whole if kind == "quick" else None)
    judged = _judged(margins, reasons)
    margin = card.whole.margin(judged or margins)
    probability = card.whole.calibration.probability(margin)
    if not judged:
        return Look(kind, margin, probability, "unsure", windows, reasons[0])
    return Look(kind, margin, probability, card.whole.decision.verdict(probability), windows)


def map_of(score: _Score, card: ModelCard, image: NDArray[np.uint8], most: int) -> tuple[Window, ...]:
    """Score windows that cover a picture evenly (`windows.window_grid`); those without content to judge are left out.

    Raises:
        ConfigurationError: the model has no windows, or `most` is less than 1.
    """
    check_windows(card)
    if most < 1:
        raise ConfigurationError(f"map of {most} windows: expected at least 1")
    size = card.preprocess.size
    corners = window_grid(image.shape[0], image.shape[1], size, most)
    windows, _, reasons = _score_windows(score, image, corners, size)
    return tuple(window for window, reason in zip(windows, reasons, strict=True) if reason is None)


def _seconds_of_a_whole_look(score: _Score, card: ModelCard) -> float:
    """Time one whole look, the faster of two, at a picture that has room for every window; infinity if it fails."""
    side = 4 * card.preprocess.size
    image = np.full((side, side, 3), 128, np.uint8)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        try:
            look_at(score, card, image, "whole")
        except InferenceError:
            return math.inf
        times.append(time.perf_counter() - started)
    return min(times)


def _score_windows(
    score: _Score, image: NDArray[np.uint8], corners: list[tuple[int, int]], size: int, quick: WholeLook | None = None
) -> tuple[tuple[Window, ...], list[float], list[str | None]]:
    """Return the windows at these corners (row, column), the margin of each, and why it has no content to judge.

    With `quick`, no window comes after its stops are met.
    """
    windows: list[Window] = []
    margins: list[float] = []
    reasons: list[str | None] = []
    for row, column in corners:
        scores = score(image[row : row + size, column : column + size])
        windows.append(Window(column, row, size, float(scores.probability[0])))
        margins.append(_margin(scores))
        reasons.append(scores.reasons[0])
        if quick is not None and quick.stops_at(_judged(margins, reasons)):
            break
    return tuple(windows), margins, reasons


def _judged(margins: list[float], reasons: list[str | None]) -> list[float]:
    return [margin for margin, reason in zip(margins, reasons, strict=True) if reason is None]


def _margin(scores: Scores) -> float:
    return float(scores.logits[0, 1]) - float(scores.logits[0, 0])
