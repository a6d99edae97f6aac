"""Verdicts on whole videos, calibrated on clips made of pictures (`asr_train.data.clips`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asr_runtime.contract import VideoRule, WholeLook
from asr_train.data.layouts import Sample
from asr_train.figures.calibrate import FittedCalibration, calibrate_video, video_figures

__all__ = ["ClipMargins", "video_rule", "whole_video_rule"]


@dataclass(frozen=True)
class ClipMargins:
    """Scores of clips.

    Attributes:
        samples: the n pictures that they are made of.
        labels: int (n,), 0 = real, 1 = AI-generated.
        margins: float64 (n,), the mean over frames, and over their windows where all of them are looked at.
        unseen: bool (n,), made of training pictures and scored by heads that have not seen these; the others are made
            of validation pictures.
    """

    samples: tuple[Sample, ...]
    labels: NDArray[np.int_]
    margins: NDArray[np.float64]
    unseen: NDArray[np.bool_]


def video_rule(clips: ClipMargins, fitted: FittedCalibration, fitted_on: str) -> tuple[VideoRule, dict[str, Any]]:
    """Calibrate verdicts on whole videos.

    Args:
        clips: centres of frames.
        fitted: the calibration of pictures.
        fitted_on: names the clips, for the card.

    Returns:
        The rule, from clips of training pictures, and `video_figures` of the others.
    """
    log_odds = fitted.calibration.log_odds(clips.margins)
    rule = calibrate_video(clips.labels[clips.unseen], log_odds[clips.unseen], fitted_on)
    return rule, video_figures(clips.labels[~clips.unseen], log_odds[~clips.unseen], rule)


def whole_video_rule(
    clips: ClipMargins, centre: ClipMargins, whole: WholeLook, fitted_on: str
) -> tuple[WholeLook, dict[str, Any]]:
    """Give the whole look its rule for videos, where it ranks unseen clips better than the centre does.

    Args:
        clips: all windows of frames.
        centre: centres of frames, of the same pictures at least.
        whole: the look at pictures.
        fitted_on: names the clips, for the card.

    Returns:
        The look, and `video_figures` of clips of validation pictures with `centre_auroc`, that of their centres, and
        `unseen_auroc` and `unseen_centre_auroc`, those of training pictures, by which the choice is made. Nothing
        where the clips are of one class.
    """
    if len(set(clips.labels[clips.unseen].tolist())) < 2:
        return whole, {}
    margin_of = {sample.path: margin for sample, margin in zip(centre.samples, centre.margins, strict=True)}
    beside = np.array([margin_of[sample.path] for sample in clips.samples])
    log_odds = whole.calibration.log_odds(clips.margins)
    unseen = clips.unseen
    rule = calibrate_video(clips.labels[unseen], log_odds[unseen], fitted_on)
    figures = video_figures(clips.labels[~unseen], log_odds[~unseen], rule)
    if figures:
        figures["centre_auroc"] = float(roc_auc_score(clips.labels[~unseen], beside[~unseen]))
    figures["unseen_auroc"] = float(roc_auc_score(clips.labels[unseen], clips.margins[unseen]))
    figures["unseen_centre_auroc"] = float(roc_auc_score(clips.labels[unseen], beside[unseen]))
    is_better = figures["unseen_auroc"] > figures["unseen_centre_auroc"]
    return (dataclasses.replace(whole, video=rule) if is_better else whole), figures
