"""Calibration of the whole look: several windows of a picture, pooled into one margin (`contract.WholeLook`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asr_runtime.contract import Verdict, WholeLook
from asr_train.data.windows import Place
from asr_train.figures.calibrate import FittedCalibration, calibrate

__all__ = ["has_room", "judged", "pooled", "whole_look"]

Array = NDArray[np.float64]
_DIGITS = 6  # windows on the same pixels have the same margin, up to rounding in another batch


def has_room(margins: Array) -> NDArray[np.bool_]:
    """Whether a picture has room for more than its centre: (n, W) margins -> (n,)."""
    rounded = np.round(margins, _DIGITS)
    return np.asarray((rounded != rounded[:, :1]).any(axis=1))


def pooled(margins: Array, top: int) -> Array:
    """Return the mean of the `top` largest margins of different windows, as `WholeLook.margin`: (n, W) -> (n,)."""
    ordered = np.sort(np.round(margins, _DIGITS), axis=1)[:, ::-1]
    again = np.zeros(ordered.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    rank = np.cumsum(~again, axis=1)
    counted = ~again & (rank <= top)
    return np.asarray((ordered * counted).sum(axis=1) / counted.sum(axis=1))


def whole_look(
    labels: NDArray[np.int_], margins: Array, places: Sequence[Place], top: int, fitted_on: str
) -> WholeLook | None:
    """Fit calibration and thresholds of the whole look.

    It becomes the default where it ranks the pictures better than the centre does.

    Args:
        labels: (n,), 0 = real, 1 = AI-generated.
        margins: (n, W), of the windows of pictures that the head has not seen.
        places: of the W windows.
        top: how many of the largest margins are averaged.
        fitted_on: names the pictures, for the card.

    Returns:
        None with one window only, or where pictures of a class have no room for more than one.
    """
    wide = has_room(margins)
    if len(places) < 2 or len(set(labels[wide].tolist())) < 2:
        return None
    labels, margins = labels[wide], margins[wide]
    together = pooled(margins, top)
    fitted = calibrate(labels, together, fitted_on)
    is_better = roc_auc_score(labels, together) > roc_auc_score(labels, margins[:, 0])
    return WholeLook(
        windows=tuple(places),
        top=top,
        calibration=fitted.calibration,
        decision=fitted.decision,
        operating_points=fitted.operating_points,
        is_default=bool(is_better),
    )


def judged(margins: Array, centre: FittedCalibration, whole: WholeLook | None) -> tuple[Array, list[Verdict]]:
    """Return probabilities (n,) and verdicts of pictures from their windows' margins (n, W), as the runtime does.

    Args:
        margins: of the centre first.
        centre: judges the centre, and pictures that have room for no other window.
        whole: judges the others; None: the centre is all that is looked at.
    """
    probability = np.asarray(centre.calibration.probability(margins[:, 0]))
    decisions = np.full(len(margins), centre.decision, dtype=object)
    if whole is not None:
        wide = has_room(margins)
        probability[wide] = whole.calibration.probability(pooled(margins[wide], whole.top))
        decisions[wide] = whole.decision
    return probability, [decision.verdict(float(p)) for decision, p in zip(decisions, probability, strict=True)]
