"""What messengers and sites do to a picture that is sent on: chains of shrinking and re-encoding.

`asr-evaluate --robustness` measures each of them; `Augment.history` gives training pictures an earlier life. Every
chain takes one uint8 BGR image (H, W, 3) of any size and returns another. The same image gives the same result. Sizes
and qualities are typical ones: services change theirs, and none is promised by name.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_train.data.augment import reencode
from asr_train.data.edits import Family

__all__ = ["HISTORIES", "screenshot"]

Image = NDArray[np.uint8]

_QUALITY = {1600: 85, 1280: 75, 960: 70}  # of a messenger's JPEG, by the longest side that it sends


def screenshot(image: Image, shown: float) -> Image:
    """Show the image `shown` px wide on a telephone (at most 16:9 upright) and cut it out with a little of the frame.

    The file of a screenshot is lossless, so the resampling and the frame are all that it does.
    """
    height, width = image.shape[:2]
    screen = _scaled(image, min(shown / width, shown * 16 / 9 / height))
    band = max(1, round(screen.shape[1] * 0.04))
    return np.asarray(cv2.copyMakeBorder(screen, band, band, 0, 0, cv2.BORDER_CONSTANT, value=(24, 22, 22)), np.uint8)


def _scaled(image: Image, scale: float) -> Image:
    """Averaging over the area is OpenCV's only antialiased reduction."""
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _messenger(image: Image, longest: float) -> Image:
    """Shrink a picture with a longer side than that to it, save it as JPEG with halved colour."""
    scale = longest / max(image.shape[:2])
    return reencode(_scaled(image, scale) if scale < 1 else image, ".jpg", _QUALITY[int(longest)])


def _forwarded(image: Image, times: float) -> Image:
    """Send through so many messengers: each has its own size and quality."""
    for longest in tuple(_QUALITY)[: int(times)]:
        image = _messenger(image, longest)
    return image


def _reduced(image: Image, scale: float) -> Image:
    """What a messenger does to a picture that is larger than it sends, whatever the size: shrink, JPEG 75."""
    return reencode(_scaled(image, scale), ".jpg", 75)


def _site(image: Image, quality: float) -> Image:
    """Uploaded as JPEG 90, shown as WebP."""
    return reencode(reencode(image, ".jpg", 90), ".webp", int(quality))


def _site_sent(image: Image, scale: float) -> Image:
    """Saved from a site that shrinks it (WebP 80), then sent through a messenger (JPEG 75)."""
    return reencode(reencode(_scaled(image, scale), ".webp", 80), ".jpg", 75)


def _screenshot_sent(image: Image, shown: float) -> Image:
    """A screenshot of the picture, sent through a messenger."""
    return _messenger(screenshot(image, shown), 1600)


HISTORIES: dict[str, Family] = {
    "messenger": Family("Messenger", "longest side, px", (1600, 1280, 960), _messenger, ends_in_jpeg=True),
    "forwarded": Family("Forwarded", "messengers", (2, 3), _forwarded, ends_in_jpeg=True),
    "reduced": Family("Reduced and sent", "scale", (0.75, 0.5), _reduced, ends_in_jpeg=True),
    "site": Family("Site", "WebP quality", (75,), _site),
    "site-sent": Family("Site, sent on", "scale", (0.75, 0.5), _site_sent, ends_in_jpeg=True),
    "screenshot-sent": Family("Screenshot sent", "width, px", (1080,), _screenshot_sent, ends_in_jpeg=True),
}
"""Name -> family; the names are those of metrics.json."""
