"""Snapshots: a JPEG of every flagged picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_runtime.records import Record
from asr_runtime.reports.flagged import FlaggedPictures

__all__ = ["Snapshots"]

_QUALITY = 95


class Snapshots:
    """Writes frames and images whose verdict is AI.

    Args:
        pictures: decides which, and takes them.
    """

    def __init__(self, pictures: FlaggedPictures) -> None:
        self._pictures = pictures

    def observe(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Take one record of the run; write its picture if that is flagged.

        Args:
            record: only those of images and frames have a picture.
            image: uint8 BGR `(H, W, 3)`; None where the record has none.

        Raises:
            OutputError: the picture cannot be written.
        """
        name = self._pictures.name(record, image)
        if name is not None and image is not None:
            self._pictures.write(name, image, _QUALITY)
