"""Whole looks of an exported file, compared with PyTorch."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr_models import Deployed
from asr_runtime import Detector, read_image
from asr_runtime.contract import WholeLook
from asr_runtime.media.image import IMAGE_SUFFIXES
from asr_runtime.sources.walk import files_below

__all__ = ["WHOLE_TOLERANCE", "whole_difference"]

WHOLE_TOLERANCE = 1e-4  # of a probability; the margins behind it pass a stricter check of their own
_ROOM = 3  # sides of a window that a picture measures at least, so that no two windows are one
_PICTURES = 8


def whole_difference(deployed: Deployed, detector: Detector, images: Path) -> float:
    """Return the largest difference of the probability of a whole look between a file and eager PyTorch.

    Args:
        deployed: the PyTorch twin.
        detector: the exported file; its card has a whole look.
        images: folder of pictures. Some are compared, each repeated until it has room for every window of the card.
    """
    whole, size = detector.card.whole, detector.card.preprocess.size
    assert whole is not None
    worst = 0.0
    pictures = (path for path in files_below(str(images)) if Path(path).suffix.lower() in IMAGE_SUFFIXES)
    for path in itertools.islice(pictures, _PICTURES):
        image = read_image(path)
        rows, columns = (-(-_ROOM * size // side) for side in image.shape[:2])
        image = np.tile(image, (rows, columns, 1))
        worst = max(worst, abs(detector.look(image, "whole").probability - _eager(deployed, whole, image, size)))
    return worst


@torch.inference_mode()
def _eager(deployed: Deployed, whole: WholeLook, image: NDArray[np.uint8], size: int) -> float:
    corners = whole.corners(image.shape[0], image.shape[1], size)
    windows = np.stack([image[row : row + size, column : column + size] for row, column in corners])
    _, logits = deployed(torch.from_numpy(windows))
    return whole.calibration.probability(whole.margin((logits[:, 1] - logits[:, 0]).double().tolist()))
