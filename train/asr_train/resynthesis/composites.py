"""Partly generated pictures: photos in which a network drew one region, or a generated picture fills it.

`composite` makes a data folder in the layout `generators`, one source per way of filling the region. A photo and the
picture made of it bear the same name:

    OUT/partly_<way>/{train,val}/nature/<photo source>_<start of its SHA-256>.png    the photo
    OUT/partly_<way>/{train,val}/ai/<the same>.png                                   with its region filled
    OUT/partly_<way>.masks/<split>_<the same>.png                                    what is filled: 0 not, 255 wholly
    OUT/index.csv                                                                    where each is from
"""

from __future__ import annotations

import csv
import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, DatasetError, InputError
from asr_runtime.media.image import read_image
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole
from asr_train.data.layouts import SPLITS, DataFolder, Sample
from asr_train.resynthesis.resynthesise import RESYNTHESISERS, Resynthesiser, load_resynthesiser

__all__ = ["PARTLY", "PASTED", "WAYS", "CompositeRow", "Composited", "composite", "mask_path", "region_mask"]

PASTED = "pasted"
WAYS = (PASTED, *RESYNTHESISERS)
"""How a region is filled: with a cut of a generated picture, or with what a network makes of the photo there."""

PARTLY = "partly_"
"""Start of the sources' names."""

_SHARES = (0.4, 0.7)  # of the picture's sides, that the region's sides have
_FEATHER = 6.0  # px, sigma of the region's soft edge
_SURROUNDINGS = 32  # px around the region that a network sees
_LEAST_SIDE = 256  # px; of a smaller picture no window lies outside the region

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class CompositeRow:
    """One picture of index.csv.

    Attributes:
        picture: file with the filled region, relative to the folder.
        way: one of `WAYS`.
        split: of the photo.
        photo: file that the picture is made of, relative to its data folder.
        source: of the photo.
        sha256: of that file.
        donor: generated picture that fills the region, relative to its data folder; empty for a network.
        top: first row of the region.
        left: first column of the region.
        height: of the region, in pixels.
        width: of the region, in pixels.
        share: of the picture that is filled, 0 to 1.
    """

    picture: str
    way: str
    split: str
    photo: str
    source: str
    sha256: str
    donor: str
    top: int
    left: int
    height: int
    width: int
    share: float


@dataclass(frozen=True)
class Composited:
    """What a run made: pictures per way, and photo -> why no picture was made of it."""

    made: Mapping[str, int]
    failed: Mapping[str, str]


def composite(
    data: DataFolder,
    out: Path,
    ways: Sequence[str],
    weights: Path | None = None,
    splits: Sequence[str] | None = None,
    side: int = 768,
    most: int | None = None,
    stop: threading.Event | None = None,
) -> Composited:
    """Make one partly generated picture of every photo and way.

    The region is a rectangle or an ellipse with a soft edge; its sides are 0.4 to 0.7 of the picture's. The SHA-256 of
    the photo's file fixes shape, place and donor, so a second run makes the same pictures. Files are lossless.

    Args:
        data: photos, and for `pasted` generated pictures of the same split.
        out: folder to write; pictures of an earlier run are replaced.
        ways: of `WAYS`.
        weights: folder of TAEF2's weights.
        splits: which to take; None takes all there are.
        side: longest side of a picture in pixels; of a larger photo the middle is cut out, never resized.
        most: at most so many photos of each split, sources in turn; None takes all.
        stop: when set, the run ends after the photo at hand.

    Raises:
        ConfigurationError: a value that cannot work.
        DatasetError: no photos; for `pasted` no generated pictures.
        DependencyError: a package is not installed.
        ModelError: a network that does not load.
        OutputError: the disk.
    """
    if side < _LEAST_SIDE:
        raise ConfigurationError(f"side {side}: expected at least {_LEAST_SIDE} pixels")
    if most is not None and most < 1:
        raise ConfigurationError(f"most {most}: expected at least 1 photo")
    networks = {way: load_resynthesiser(way, weights) for way in dict.fromkeys(ways) if way != PASTED}
    rows: list[CompositeRow] = []
    failed: dict[str, str] = {}
    for split in splits or [name for name in SPLITS if getattr(data, name)]:
        samples = data.split(split)
        photos = _in_turn([s for s in samples if s.label == 0 and not s.source.startswith(PARTLY)])[:most]
        donors = [s for s in samples if s.label == 1 and not s.source.startswith(PARTLY)]
        if not photos:
            raise DatasetError(f"{data.root}: no photo in the split {split} (looked for class nature or 0_real)")
        if PASTED in ways and not donors:
            raise DatasetError(f"{data.root}: no generated picture in the split {split} to paste from")
        for photo in progress_bar(photos, split):
            if stop is not None and stop.is_set():
                break
            try:
                rows += [_make(data.root, out, photo, split, way, networks.get(way), donors, side) for way in ways]
            except InputError as error:
                failed[photo.path.relative_to(data.root).as_posix()] = str(error)
    write_whole(out / "index.csv", _table(rows))
    return Composited({way: sum(row.way == way for row in rows) for way in ways}, failed)


def _make(
    root: Path,
    out: Path,
    photo: Sample,
    split: str,
    way: str,
    network: Resynthesiser | None,
    donors: Sequence[Sample],
    side: int,
) -> CompositeRow:
    """Make and write one picture.

    Raises:
        InputError: the photo or its donor cannot be read, or is too small.
    """
    digest = hashlib.sha256(photo.path.read_bytes()).hexdigest()
    image = _middle(read_image(photo.path), side)
    if min(image.shape[:2]) < _LEAST_SIDE:
        raise InputError(f"{photo.path}: {image.shape[1]} x {image.shape[0]} pixels, expected {_LEAST_SIDE} at least")
    rng = np.random.default_rng(int(digest, 16))
    height, width = (round(length * rng.uniform(*_SHARES)) for length in image.shape[:2])
    is_ellipse = bool(rng.integers(2))
    filling = image
    donor = ""
    if network is None:
        sources = sorted({sample.source for sample in donors})
        source = sources[int(rng.integers(len(sources)))]
        own = [sample for sample in donors if sample.source == source]
        chosen = own[int(rng.integers(len(own)))]
        donor = chosen.path.relative_to(root).as_posix()
        generated = read_image(chosen.path)
        height, width = min(height, generated.shape[0]), min(width, generated.shape[1])
        row, column = (int(rng.integers(0, a - b + 1)) for a, b in zip(generated.shape, (height, width), strict=False))
        filling = generated[row : row + height, column : column + width]
    top = int(rng.integers(0, image.shape[0] - height + 1))
    left = int(rng.integers(0, image.shape[1] - width + 1))
    mask = region_mask(image.shape[:2], (top, left, height, width), is_ellipse)
    filled = image.copy()
    if network is not None:
        first, before = max(0, top - _SURROUNDINGS), max(0, left - _SURROUNDINGS)
        seen = np.s_[first : top + height + _SURROUNDINGS, before : left + width + _SURROUNDINGS]
        filled[seen] = network.apply(np.ascontiguousarray(image[seen]))
    else:
        filled[top : top + height, left : left + width] = filling
    weight = mask[..., None].astype(np.float32) / 255
    mixed = np.rint(image * (1 - weight) + filled * weight).astype(np.uint8)
    name, folder = f"{photo.source}_{digest[:16]}.png", out / (PARTLY + way) / split
    write_whole(folder / "nature" / name, _png(image))
    write_whole(folder / "ai" / name, _png(mixed))
    write_whole(mask_path(folder / "ai" / name), _png(mask))
    picture = (folder / "ai" / name).relative_to(out).as_posix()
    original = photo.path.relative_to(root).as_posix()
    share = round(float(mask.mean()) / 255, 4)
    return CompositeRow(picture, way, split, original, photo.source, digest, donor, top, left, height, width, share)


def mask_path(picture: Path) -> Path:
    """Return where the mask of OUT/partly_<way>/<split>/ai/<name> lies."""
    split = picture.parents[1]
    return split.parent.with_name(split.parent.name + ".masks") / f"{split.name}_{picture.name}"


def region_mask(shape: tuple[int, ...], box: tuple[int, int, int, int], is_ellipse: bool) -> Image:
    """Draw a region with a soft edge: uint8 (H, W), 255 inside, 0 outside the box.

    Args:
        shape: (H, W) of the picture.
        box: top, left, height and width of the region in pixels.
        is_ellipse: the ellipse in the box; else the box itself.
    """
    top, left, height, width = box
    mask = np.zeros(shape, np.uint8)
    # The soft edge lies inside the box: nothing is there to mix in beyond it.
    soft = round(2 * _FEATHER)
    if is_ellipse:
        centre = (left + width // 2, top + height // 2)
        axes = (max(1, width // 2 - soft), max(1, height // 2 - soft))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    else:
        mask[top + soft : top + height - soft, left + soft : left + width - soft] = 255
    blurred = cv2.GaussianBlur(mask, (0, 0), _FEATHER)
    outside = np.ones(shape, bool)
    outside[top : top + height, left : left + width] = False
    blurred[outside] = 0
    return np.asarray(blurred, np.uint8)


def _in_turn(photos: Sequence[Sample]) -> list[Sample]:
    """Order photos so that the first ones are of as many sources as can be, always the same way."""
    place: dict[str, int] = {}
    ordered = []
    for photo in sorted(photos, key=lambda s: (hashlib.sha256(s.path.name.encode()).digest(), s.path)):
        place[photo.source] = place.get(photo.source, -1) + 1
        ordered.append((place[photo.source], photo.source, photo))
    return [photo for *_, photo in sorted(ordered, key=lambda item: item[:2])]


def _middle(image: Image, side: int) -> Image:
    height, width = (min(side, length) for length in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _png(image: Image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _table(rows: Sequence[CompositeRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(CompositeRow)])
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()
