"""Runs a model once on a few frames, and refuses one whose card says something else than its graph does.

The runtime cuts windows, and judges whether they hold anything, by the card; the graph cuts its own. Where they differ,
every verdict is about other pixels than those that it was calibrated on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import ModelCard, Preprocess
from asr_runtime.errors import ModelError

__all__ = ["check_card"]

_TOLERANCE = 1e-4  # of a probability, and of a margin relative to the largest or to 1
_RIM = 2  # pixels of the network's input: a convolution with a stride may leave out the last one
_AGAIN = "export the checkpoint again with asr-export"

_Frame = NDArray[np.uint8]
_Run = Callable[[_Frame], tuple[NDArray[np.float32], NDArray[np.float32]]]


def check_card(run: _Run, card: ModelCard) -> None:
    """Compare calibration, mode and size of the card with what the graph does to noise, in three inferences.

    A card whose size is up to three pixels too large passes.

    Args:
        run: from uint8 frames `(1, H, W, 3)` to probability `(1,)` and logits `(1, 2)`.
        card: of the same model.

    Raises:
        ModelError: the card contradicts the graph.
    """
    preprocess = card.preprocess
    scale, side = (
        (1, preprocess.size + 2) if preprocess.mode == "crop" else (2, 2 * (preprocess.resize or preprocess.size))
    )
    seen = side if preprocess.mode == "squash" else scale * preprocess.size
    frame = _noise(side)
    margin = _check_calibration(run, card, frame)
    slack = 0 if scale == 1 else scale * _RIM  # a filter that halves a frame mixes pixels on both sides of an edge
    outside = _all_but(side, seen + 2 * slack)
    if outside.any() and abs(_margin(run, _inverted(frame, outside)) - margin) > _TOLERANCE * max(1.0, abs(margin)):
        raise ModelError(_contradiction(preprocess, "sees more of a frame"))
    rim = _all_but(side, seen - 2 * scale * _RIM) & ~_all_but(side, seen)
    everything = np.ones_like(rim)
    # A network that gives one number for everything shows nothing.
    if _margin(run, _inverted(frame, rim)) == margin != _margin(run, _inverted(frame, everything)):
        raise ModelError(_contradiction(preprocess, "sees less of a frame"))


def _check_calibration(run: _Run, card: ModelCard, frame: _Frame) -> float:
    """Compare the probability with the card's calibration of the logits; returns the margin."""
    probability, logits = run(frame)
    margin = float(logits[0, 1]) - float(logits[0, 0])
    expected = card.calibration.probability(margin)
    if abs(float(probability[0]) - expected) > _TOLERANCE:
        raise ModelError(
            f"its card contradicts its graph: the card's calibration gives {expected:.6f} where the "
            f"graph gives {float(probability[0]):.6f}; {_AGAIN}"
        )
    return margin


def _contradiction(preprocess: Preprocess, how: str) -> str:
    resize = f", resize {preprocess.resize}" if preprocess.resize is not None else ""
    return (
        f"its card contradicts its graph: the card says preprocess mode {preprocess.mode}, size {preprocess.size}"
        f"{resize}, and the graph {how} than that; {_AGAIN}"
    )


def _noise(side: int) -> _Frame:
    """Return one dark frame: on an even grey a margin may be near 0, where a wrong temperature does not show."""
    noise = np.arange(9973, dtype=np.uint32) * np.uint32(2654435761) >> 13
    return np.resize((noise % 96).astype(np.uint8), (1, side, side, 3))


def _all_but(side: int, centre: int) -> NDArray[np.bool_]:
    """Return (side, side) with False in the centre."""
    is_outside = np.ones((side, side), np.bool_)
    centre = min(max(0, centre), side)
    inside = slice((side - centre) // 2, (side + centre) // 2)
    is_outside[inside, inside] = False
    return is_outside


def _inverted(frame: _Frame, where: NDArray[np.bool_]) -> _Frame:
    return np.where(where[None, :, :, None], 255 - frame, frame)


def _margin(run: _Run, frame: _Frame) -> float:
    _, logits = run(frame)
    return float(logits[0, 1]) - float(logits[0, 0])
