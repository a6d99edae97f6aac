"""From the margin of two logits to a probability that can be believed, and from there to verdicts.

Platt scaling: P(ai) = sigmoid(margin / temperature + shift), fitted with both classes weighing the same, so 0.5 means
"as likely real as generated" whatever the mix of the calibration split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from asr_runtime.contract import Calibration, Decision, OperatingPoint, VideoRule
from asr_runtime.errors import DatasetError
from asr_train.figures.metrics import FALSE_POSITIVE_RATES, balanced_calibration_error, threshold_at

__all__ = ["FittedCalibration", "calibrate", "calibrate_video", "video_figures"]

_MISS_RATE = 0.1
_LARGEST_TEMPERATURE = 1e3  # a margin that tells nothing: every probability is then near 0.5


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

    The verdict is `ai` from the threshold of a 5% false-positive rate on, `real` below the threshold that 10% of the
    generated images stay under, and `unsure` between; where the two cross there is no unsure band.

    Raises:
        DatasetError: one class is missing.
    """
    if len(set(labels.tolist())) < 2:
        raise DatasetError(f"calibration needs images of both classes; {fitted_on} holds one")
    fit = LogisticRegression(C=np.inf, class_weight="balanced")
    fit.fit(margins.reshape(-1, 1).astype(np.float64), labels)
    slope, shift = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope < 1 / _LARGEST_TEMPERATURE:
        slope, shift = 1 / _LARGEST_TEMPERATURE, 0.0
    probability = _sigmoid(margins * slope + shift)
    real, fake = probability[labels == 0], probability[labels == 1]
    points = tuple(
        OperatingPoint(rate, threshold, float((fake >= threshold).mean()))
        for rate in FALSE_POSITIVE_RATES
        for threshold in [min(threshold_at(real, rate), 1.0)]
    )
    ai_from = points[-1].threshold
    real_below = min(float(np.quantile(fake, _MISS_RATE)), ai_from)
    rule = (
        f"ai from the threshold of {FALSE_POSITIVE_RATES[-1]:.0%} false positives, real below the one of "
        f"{_MISS_RATE:.0%} misses, on {fitted_on}"
    )
    return FittedCalibration(Calibration(1 / slope, shift, fitted_on), Decision(real_below, ai_from, rule), points)


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
    probability = _sigmoid(log_odds / rule.calibration.temperature + rule.calibration.shift)
    verdicts = np.array([rule.decision.verdict(float(p)) for p in probability])
    return {
        "videos": len(labels),
        "auroc": float(roc_auc_score(labels, log_odds)),
        "balanced_ece": balanced_calibration_error(labels, probability),
        "balanced_ece_as_images": balanced_calibration_error(labels, _sigmoid(log_odds)),
        "unsure": float((verdicts == "unsure").mean()),
        "false_positive_rate": float((verdicts[labels == 0] == "ai").mean()),
        "true_positive_rate": float((verdicts[labels == 1] == "ai").mean()),
    }


def _sigmoid(margins: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-margins.astype(np.float64))))
