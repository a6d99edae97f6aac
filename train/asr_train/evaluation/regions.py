"""Partly generated pictures: does a model distinguish windows inside the generated region from windows outside?

The pictures and their masks are those of asr-composite (`asr_train.resynthesis.composites`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asr_runtime import Detector, read_image
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_runtime.inference.looking import check_windows
from asr_runtime.reports.progress import progress_bar
from asr_runtime.windows import Window
from asr_train.data.augment import equalise

__all__ = ["INSIDE", "OUTSIDE", "evaluate_regions", "region_figures", "region_lines"]

INSIDE = 0.75
"""Least share of a window that lies in the region, for the window to count as inside."""

OUTSIDE = 0.01
"""Largest share of a window outside. Windows between the two are not judged."""

_RESAMPLES = 1000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Picture:
    """Judged windows of one picture: probabilities (n,), and which of them lie inside the region, bool (n,)."""

    probability: Array
    inside: NDArray[np.bool_]


def evaluate_regions(
    model: str | None, data: Path, split: str | None, equalise: int | None, device: str
) -> dict[str, dict[str, Any]]:
    """Load an exported file and return `region_figures`; arguments as for `evaluate.evaluate_model`.

    Raises:
        ConfigurationError: no exported file, or its model has no windows.
        DatasetError: the folder is none of asr-composite.
    """
    if model is None:
        raise ConfigurationError("--regions: expected an exported file or built-in model, --model X.onnx")
    detector = Detector(model, device=device)
    check_windows(detector.card)
    return region_figures(detector, data, equalise, split=split or "val")


def region_figures(
    detector: Detector, folder: Path, quality: int | None = 90, most: int = 36, split: str = "val"
) -> dict[str, dict[str, Any]]:
    """Score windows all over partly generated pictures and compare those inside with those outside the region.

    Args:
        detector: of a model with windows (preprocess mode crop).
        folder: that asr-composite made.
        quality: JPEG quality that every picture is re-encoded with first; None leaves it as it is.
        most: largest number of windows of a picture.
        split: of the photos.

    Returns:
        Way of filling (`pasted`, `taef2`, ...) -> `pictures`, `inside` and `outside` (windows), `auroc` of all windows
        with its 95% `interval` over pictures, `auroc_within` (windows of one picture only are compared; mean over
        pictures with both) and `called_ai_inside`, `called_ai_outside`: shares of windows with the verdict `ai`.

    Raises:
        DatasetError: the folder holds no such pictures.
        InputError: a picture cannot be read.
    """
    ways = sorted(path for path in folder.glob("partly_*") if (path / split / "ai").is_dir())
    if not ways:
        raise DatasetError(f"{folder}: no partly generated pictures of the split {split}; make them with asr-composite")
    figures = {}
    for way in ways:
        files = sorted((way / split / "ai").iterdir())
        shown = progress_bar(files, way.name)
        pictures = [_judge(detector, file, quality, most) for file in shown]
        figures[way.name.removeprefix("partly_")] = _figures(pictures, detector)
    return figures


def _judge(detector: Detector, file: Path, quality: int | None, most: int) -> _Picture:
    image = read_image(file)
    split = file.parents[1]
    mask = read_image(split.parent.with_name(split.parent.name + ".masks") / f"{split.name}_{file.name}")[..., 0]
    windows = detector.map(image if quality is None else equalise(image, quality), most)
    covered = _covered(mask, windows)
    judged = (covered >= INSIDE) | (covered <= OUTSIDE)
    return _Picture(np.array([w.probability for w in windows])[judged], (covered >= INSIDE)[judged])


def _covered(mask: NDArray[np.uint8], windows: Sequence[Window]) -> Array:
    """Return the share of each window that is filled."""
    total = cv2.integral(mask.astype(np.float64) / 255)
    shares = []
    for window in windows:
        bottom, right = (min(a + window.size, b) for a, b in zip((window.y, window.x), mask.shape, strict=True))
        area = (bottom - window.y) * (right - window.x)
        inner = total[bottom, right] - total[window.y, right] - total[bottom, window.x] + total[window.y, window.x]
        shares.append(inner / area)
    return np.array(shares)


def _figures(pictures: Sequence[_Picture], detector: Detector) -> dict[str, Any]:
    decision = detector.card.decision
    probability = np.concatenate([one.probability for one in pictures])
    inside = np.concatenate([one.inside for one in pictures])
    is_ai = np.array([decision.verdict(float(p)) == "ai" for p in probability])
    both = [one for one in pictures if 0 < one.inside.sum() < len(one.inside)]
    within = [float(roc_auc_score(one.inside, one.probability)) for one in both]
    return {
        "pictures": len(pictures),
        "inside": int(inside.sum()),
        "outside": int((~inside).sum()),
        "auroc": _auroc(pictures),
        "interval": _interval(pictures),
        "auroc_within": float(np.mean(within)) if within else None,
        "called_ai_inside": float(is_ai[inside].mean()) if inside.any() else None,
        "called_ai_outside": float(is_ai[~inside].mean()) if (~inside).any() else None,
    }


def _auroc(pictures: Sequence[_Picture]) -> float | None:
    inside = np.concatenate([one.inside for one in pictures])
    if not 0 < inside.sum() < len(inside):
        return None
    return float(roc_auc_score(inside, np.concatenate([one.probability for one in pictures])))


def _interval(pictures: Sequence[_Picture]) -> list[float] | None:
    """Return the 95% interval of the AUROC: pictures are drawn with replacement."""
    rng = np.random.default_rng(0)
    draws = [_auroc([pictures[i] for i in rng.integers(0, len(pictures), len(pictures))]) for _ in range(_RESAMPLES)]
    known = [value for value in draws if value is not None]
    return np.quantile(known, [0.025, 0.975]).tolist() if known else None


def region_lines(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the figures as text, a line for each way of filling."""

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    width = max(21, *(len(way) for way in figures))
    header = f"{'windows in and out of':<{width}} {'pictures':>9}{'inside':>8}{'outside':>9}{'AUROC':>8}"
    lines = [f"{header}{'interval':>17}{'within':>8}{'inside ai':>11}{'outside ai':>12}"]
    for way, one in figures.items():
        interval = "-" if one["interval"] is None else " to ".join(f"{end:.2f}" for end in one["interval"])
        lines.append(
            f"{way:<{width}} {one['pictures']:>9}{one['inside']:>8}{one['outside']:>9}{number(one['auroc']):>8}"
            f"{interval:>17}{number(one['auroc_within']):>8}{share(one['called_ai_inside']):>11}"
            f"{share(one['called_ai_outside']):>12}"
        )
    return lines
