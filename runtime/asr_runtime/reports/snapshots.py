"""Pictures of what was found: a JPEG when a source turns to AI, and now and then while it stays so."""

from __future__ import annotations

import os

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.records import Record
from asr_runtime.reports.flagged import Flagged, PictureFolder

__all__ = ["Snapshots"]

_QUALITY = 95
_LARGEST_SIDE = 65500  # pixels; what a JPEG can hold


class Snapshots:
    """Writes frames and images whose verdict is AI into a folder, each whole or not at all.

    A file has the name that `Flagged.name` gives it: `door_20261103T101522.125Z_p0.973.jpg` for one.

    Args:
        folder: made if it is not there.
        min_interval: seconds between two snapshots of a video that stays AI.
        keep: files of this run to keep; beyond it the oldest is removed.

    Raises:
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str], min_interval: float = 10.0, keep: int = 1000) -> None:
        self._flagged = Flagged(min_interval)
        self._folder = PictureFolder(folder, "snapshot", keep)

    def observe(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Take one record of the run; write its picture where it is due.

        Args:
            record: only those of images and frames have a picture.
            image: uint8 BGR, H x W x 3; None where the record has none.

        Raises:
            OutputError: the picture cannot be written.
        """
        name = self._flagged.name(record, image)
        if name is None or image is None:
            return
        shrink = _LARGEST_SIDE / max(image.shape)
        if shrink < 1:
            size = [max(1, int(side * shrink)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        self._folder.write(f"{name}.jpg", data.tobytes())
