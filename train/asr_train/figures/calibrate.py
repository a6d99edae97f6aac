"""Turns the margin of two logits into a calibrated probability, and probabilities into verdicts.

Platt scaling: P(ai) = sigmoid(margin / temperature + shift), fitted with both classes weighing the same, so 0.5 means
"as likely real as generated" whatever the mix of the calibration split. The targets are Platt's: with n images of a
class 1 - 1 / (n + 2) instead of 1, so a few images that are separated without an error give no certainty.

J. Platt, "Probabilistic outputs for support vector machines", 1999.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from asr_runtime.contract import Calibration, Decision, OperatingPoint, VideoRule, sigmoid
from asr_runtime.errors import DatasetError
from asr_train.figures.metrics import FALSE_POSITIVE_RATES, balanced_calibration_error, threshold_at

__all__ = ["UNSURE_BAND", "FittedCalibration", "calibrate", "calibrate_video", "video_figures"]

log = logging.getLogger("asr_train")

UNSURE_BAND = (0.4, 0.6)
"""Probabilities that are always unsure: thresholds that a good detector puts closer together are moved apart."""

_MISS_RATE = 0.1
_LARGEST_TEMPERATURE = 1e3  # reached where margins say nothing about the label: every probability is then near 0.5


@dataclass(frozen=True)
class FittedCalibration:
    """Calibration, verdict band and operating points, all from one split."""

    calibration: Calibration
    decision: Decision
    operating_points: tuple[OperatingPoint, ...]


def calibrate(labels: NDArray[np.int_], margins: NDArray[np.floating[Any]], fitted_on: str) -> FittedCalibration:
    """Fit temperature and shift, then place the thresholds.

    Args:
        labels: (n,), 0 = real, 1 = AI-generated; both must occur.
        margins: (n,), logit_ai - logit_real.
        fitted_on: names the split, for the card.

    The verdict is `ai` from the threshold of a 5% false-positive rate on, but never below the upper end of
    `UNSURE_BAND`; `real` below the threshold that 10% of the generated images stay under, but never above the lower
    end; and `unsure` between.

    Raises:
        DatasetError: one class is missing, a margin is NaN or infinite, or all margins are equal.
    """
    if len(set(labels.tolist())) < 2:
        raise DatasetError(f"calibration needs images of both classes; {fitted_on} holds one")
    if not np.isfinite(margins).all():
        raise DatasetError(f"calibration on {fitted_on}: the network gives NaN or infinity")
    if np.ptp(margins) == 0:
        raise DatasetError(
            f"calibration on {fitted_on}: every image gets the same score, so no threshold can be placed"
        )
    calibration = _platt(labels, margins, fitted_on)
    probability = calibration.probability(margins)
    real, fake = probability[labels == 0], probability[labels == 1]
    points = tuple(
        OperatingPoint(rate, threshold, float((fake >= threshold).mean()))
        for rate in FALSE_POSITIVE_RATES
        for threshold in [min(threshold_at(real, rate), 1.0)]
    )
    lowest, highest = UNSURE_BAND
    ai_from = max(points[-1].threshold, highest)
    real_below = min(float(np.quantile(fake, _MISS_RATE)), lowest)
    if not ((probability >= ai_from) | (probability < real_below)).any():
        log.warning("%s: the scores do not separate the classes; every verdict will be unsure", fitted_on)
    rule = (
        f"ai from the threshold of {FALSE_POSITIVE_RATES[-1]:.0%} false positives and at least {highest:g}, real below "
        f"the one of {_MISS_RATE:.0%} misses and at most {lowest:g}, on {fitted_on}"
    )
    return FittedCalibration(calibration, Decision(real_below, ai_from, rule), points)


def _platt(labels: NDArray[np.int_], margins: NDArray[np.floating[Any]], fitted_on: str) -> Calibration:
    """Fit a logistic regression on the margins, both classes weighing the same, with Platt's targets."""
    count = np.bincount(labels, minlength=2)[labels].astype(np.float64)  # (n,), images of the own class
    doubt = 1 / (count + 2)  # what the target leaves to the other class
    both = np.concatenate([margins, margins]).reshape(-1, 1).astype(np.float64)
    weights = np.concatenate([(1 - doubt) / count, doubt / count])
    scale = float(np.std(margins))  # the solver needs numbers of about 1
    fit = LogisticRegression(C=np.inf)
    fit.fit(both / scale, np.concatenate([labels, 1 - labels]), weights * len(labels) / 2)
    slope, shift = float(fit.coef_[0, 0]) / scale, float(fit.intercept_[0])
    if slope * _LARGEST_TEMPERATURE < 1:
        slope, shift = 1 / _LARGEST_TEMPERATURE, 0.0
    return Calibration(1 / slope, shift, fitted_on)


def calibrate_video(labels: NDArray[np.int_], log_odds: NDArray[np.floating[Any]], fitted_on: str) -> VideoRule:
    """Fit calibration and thresholds of whole videos, as `calibrate` does.

    Args:
        labels: (n,), 0 = real, 1 = AI-generated; both must occur.
        log_odds: (n,), of each video the mean of its frames' calibrated log-odds.
        fitted_on: names the videos, for the card.

    Raises:
        DatasetError: one class is missing.
    """
    fitted = calibrate(labels, log_odds, fitted_on)
    return VideoRule(fitted.calibration, fitted.decision)


def video_figures(labels: NDArray[np.int_], log_odds: NDArray[np.floating[Any]], rule: VideoRule) -> dict[str, Any]:
    """Say what a rule is worth on other videos; arguments as for `calibrate_video`.

    Returns:
        `videos`, `auroc`, `balanced_ece`, `balanced_ece_as_images` (the log-odds taken as they are), the share of
        `unsure` verdicts, `false_positive_rate` and `true_positive_rate` of the verdict ai; nothing if a class is
        missing.
    """
    if len(set(labels.tolist())) < 2:
        return {}
    probability = rule.calibration.probability(log_odds)
    verdicts = np.array([rule.decision.verdict(float(p)) for p in probability])
    return {
        "videos": len(labels),
        "auroc": float(roc_auc_score(labels, log_odds)),
        "balanced_ece": balanced_calibration_error(labels, probability),
        "balanced_ece_as_images": balanced_calibration_error(labels, sigmoid(log_odds)),
        "unsure": float((verdicts == "unsure").mean()),
        "false_positive_rate": float((verdicts[labels == 0] == "ai").mean()),
        "true_positive_rate": float((verdicts[labels == 1] == "ai").mean()),
    }
