"""Pictures that look the same: re-encoded, resized or slightly edited copies of each other."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator, Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from asr_runtime.errors import SourceError
from asr_train.data.layouts import Sample

__all__ = ["NEAR", "look_alike", "near_duplicate_groups", "perceptual_hash"]

NEAR = 4
"""Largest number of bits (of 64) in which the perceptual hashes of near duplicates differ; unrelated pictures: 32."""

_HASHED_SIDE = 128  # a JPEG is decoded at the smallest scale not below it
_BLANK_RANGE = 8  # levels between the darkest and the lightest pixel
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError)  # Pillow's, all met
_ROWS = 2000  # hashes compared at once with all others


def perceptual_hash(image: Image.Image) -> NDArray[np.bool_] | None:
    """Return the 64 signs of a picture's lowest cosine frequencies, of which small changes flip few.

    Args:
        image: not decoded yet; it is decoded at a small scale where its format can.

    Returns:
        bool (64,); None if the picture is blank: of one colour, or nearly.

    Raises:
        OSError, SyntaxError, ValueError, TypeError, struct.error: whatever Pillow meets in a broken file.
    """
    image.draft("L", (_HASHED_SIDE, _HASHED_SIDE))
    grey = image.convert("L")
    darkest, lightest = (int(value) for value in grey.getextrema())  # type: ignore[arg-type]
    if lightest - darkest <= _BLANK_RANGE:
        return None
    return np.asarray(imagehash.phash(grey).hash.ravel(), bool)


def look_alike(hashes: Sequence[NDArray[np.bool_] | None]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (a, b), a < b, of places whose hashes differ in at most `NEAR` bits; None is like nothing."""
    hashed = [(place, bits) for place, bits in enumerate(hashes) if bits is not None]
    if not hashed:
        return
    rows = [place for place, _ in hashed]
    signs = np.stack([bits for _, bits in hashed]).astype(np.float32) * 2 - 1
    for start in range(0, len(rows), _ROWS):  # (n, 64): the product of two rows is 64 - 2 * distance
        close = signs[start : start + _ROWS] @ signs.T >= 64 - 2 * NEAR
        for a, b in zip(*(place.tolist() for place in np.nonzero(close)), strict=True):
            if start + a < b:
                yield rows[start + a], rows[b]


def near_duplicate_groups(samples: Sequence[Sample]) -> NDArray[np.int_]:
    """Number pictures (n,) so that near duplicates, also over several steps, have the same number.

    Pictures that are blank, or that Pillow cannot read, are like no other.
    """
    pairs = np.array(list(look_alike([_hash_of(sample) for sample in samples])), dtype=np.int64).reshape(-1, 2)
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(samples), len(samples)))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.int64)


def _hash_of(sample: Sample) -> NDArray[np.bool_] | None:
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(sample.data())) as image:
            warnings.simplefilter("ignore")  # of odd metadata and large pictures
            return perceptual_hash(image)
    except (*_BROKEN, SourceError):
        return None
