"""Facts about image files that need no pixels: container, size, compression, metadata."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import struct
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from asr_runtime.errors import OutputError, SourceError
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import whole_file
from asr_train.data.folder_index import index_place
from asr_train.data.layouts import Sample
from asr_train.data.near_duplicates import perceptual_hash

__all__ = ["FileFacts", "file_facts", "read_facts", "summary"]

log = logging.getLogger("asr_train")

_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
_TEXT_KEYS = ("comment", "xmp", "photoshop")
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, struct.error, Image.DecompressionBombError)  # Pillow's, all met


@dataclass(frozen=True)
class FileFacts:
    """Facts of one file.

    Attributes:
        container: JPEG, PNG, `WebP lossless`, `WebP lossy`, or Pillow's name of another format.
        width: in pixels.
        height: in pixels.
        mode: Pillow's name of the samples: RGB, RGBA, L, P, ...
        bit_depth: bits per sample, 8 or 16.
        alpha: there is transparency.
        quality: of the nearest standard JPEG tables, 1 to 100; None if no JPEG.
        tables: first 8 digits of the SHA-256 of the quantisation tables, with `standard ` before it where they are
            those of the JPEG standard; None if no JPEG.
        subsampling: of the colours of a JPEG: 4:4:4, 4:2:2, 4:2:0, grey or other; None if no JPEG.
        progressive: a progressive JPEG.
        exif: there is EXIF.
        icc: there is a colour profile.
        text: there is a comment, XMP or another text (generators write their prompt there).
        sha256: of the file, hexadecimal; empty if not asked for.
        perceptual: 64 bits of a perceptual hash; None if not asked for, or if the picture is blank.
        blank: one colour, or nearly; False if hashes were not asked for.
    """

    container: str
    width: int
    height: int
    mode: str
    bit_depth: int
    alpha: bool
    quality: int | None
    tables: str | None
    subsampling: str | None
    progressive: bool
    exif: bool
    icc: bool
    text: bool
    sha256: str = ""
    perceptual: NDArray[np.bool_] | None = None
    blank: bool = False


def file_facts(
    samples: Sequence[Sample], root: Path, hashes: bool = False, progress: bool = True
) -> tuple[list[FileFacts | None], dict[str, str]]:
    """Read the facts of n files; those with hashes are kept in the user's cache folder.

    Args:
        samples: the files.
        root: of the data folder.
        hashes: `sha256` and `perceptual` as well, which reads and decodes every file.
        progress: show a progress bar on stderr, where that is a terminal.

    Returns:
        n facts, None where a file cannot be read; and path -> why.
    """
    facts: list[FileFacts | None] = []
    unreadable: dict[str, str] = {}
    known = _KnownFacts(root)
    for sample in progress_bar(samples, "reading files", visible=progress):
        try:
            key = sample.key(root)
            facts.append(known.of(key, hashes) or known.add(key, read_facts(sample.data(), hashes)))
        except (*_BROKEN, SourceError) as error:
            facts.append(None)
            unreadable[str(sample.path)] = " ".join(str(error).removeprefix(f"{sample.path}: ").split())
    known.write()
    return facts, unreadable


def read_facts(data: bytes, hashes: bool = False) -> FileFacts:
    """Read one file's bytes with Pillow; without hashes its header only.

    Raises:
        OSError, SyntaxError, ValueError, TypeError, struct.error, DecompressionBombError: whatever Pillow meets.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata and large pictures: neither is of interest here
        with Image.open(io.BytesIO(data)) as image:
            is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
            quality, tables = _tables(image) if is_jpeg else (None, None)
            facts = FileFacts(
                container="JPEG" if is_jpeg else _container(image, data),
                width=image.width,
                height=image.height,
                mode=image.mode,
                bit_depth=_bit_depth(image, data),
                alpha=image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info,
                quality=quality,
                tables=tables,
                subsampling=_subsampling(image) if is_jpeg else None,
                progressive=bool(image.info.get("progressive")),
                exif=bool(image.info.get("exif")) or len(image.getexif()) > 0,
                icc="icc_profile" in image.info,
                text=any(key in image.info for key in _TEXT_KEYS) or bool(getattr(image, "text", None)),
                sha256=hashlib.sha256(data).hexdigest() if hashes else "",
            )
            if not hashes:
                return facts
            bits = perceptual_hash(image)
            return dataclasses.replace(facts, perceptual=bits, blank=bits is None)


class _KnownFacts:
    """The facts of a data folder's files as the last audit read them, by path and content."""

    def __init__(self, root: Path) -> None:
        self._place = index_place("facts-1", root)
        self._known: dict[tuple[str, str], str] = {}
        self._is_new = False
        if self._place is not None and self._place.is_file():
            try:
                rows = pq.read_table(self._place).to_pydict()
                self._known = dict(zip(zip(rows["path"], rows["content"], strict=True), rows["facts"], strict=True))
            except Exception as error:  # whatever damaged bytes lead to
                why = (str(error).splitlines() or [type(error).__name__])[0]
                log.warning("%s: damaged (%s); its files are read again", self._place, why)

    def of(self, key: tuple[str, str], hashes: bool) -> FileFacts | None:
        """Return what is known of a file whose content is the same; None for a damaged row."""
        if (text := self._known.get(key)) is None:
            return None
        try:
            known = json.loads(text)
            bits = known.pop("perceptual")
            signs = None if bits is None else np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8)).astype(bool)
            facts = FileFacts(**known, perceptual=signs)
        except (ValueError, TypeError, KeyError, AttributeError):
            log.warning("%s: the row of %s is damaged; the file is read again", self._place, key[0])
            return None
        return facts if hashes else dataclasses.replace(facts, sha256="", perceptual=None, blank=False)

    def add(self, key: tuple[str, str], facts: FileFacts) -> FileFacts:
        """Remember facts with hashes."""
        if facts.sha256:
            bits = None if facts.perceptual is None else np.packbits(facts.perceptual).tobytes().hex()
            self._known[key] = json.dumps({**vars(facts), "perceptual": bits})
            self._is_new = True
        return facts

    def write(self) -> None:
        """Write what is new; a cache that cannot be written is no error."""
        if not self._is_new or self._place is None:
            return
        paths, contents = zip(*self._known, strict=True)
        table = pa.table({"path": list(paths), "content": list(contents), "facts": list(self._known.values())})
        with contextlib.suppress(OSError, OutputError, UnicodeEncodeError):
            self._place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._place) as part:
                pq.write_table(table, part)


def summary(facts: Sequence[FileFacts]) -> dict[str, Any]:
    """Sum up files: counts of categories, shares, and the 10th, 50th and 90th percentile of numbers."""

    def spread(values: Sequence[float]) -> list[float] | None:
        return np.percentile(values, [10, 50, 90]).tolist() if values else None

    def share(values: Sequence[bool]) -> float:
        return float(np.mean(values))

    return {
        "images": len(facts),
        "containers": dict(Counter(f.container for f in facts).most_common()),
        "width": spread([f.width for f in facts]),
        "height": spread([f.height for f in facts]),
        "multiples_of_8": share([f.width % 8 == f.height % 8 == 0 for f in facts]),
        "multiples_of_64": share([f.width % 64 == f.height % 64 == 0 for f in facts]),
        "jpeg_quality": spread([f.quality for f in facts if f.quality is not None]),
        "jpeg_tables": dict(Counter(f.tables for f in facts if f.tables is not None).most_common()),
        "jpeg_chroma": dict(Counter(f.subsampling for f in facts if f.subsampling is not None).most_common()),
        "samples": dict(Counter(f"{f.mode} {f.bit_depth} bit" for f in facts).most_common()),
        **{name: share([getattr(f, name) for f in facts]) for name in ("alpha", "exif", "icc", "text", "progressive")},
    }


def _container(image: Image.Image, data: bytes) -> str:
    if image.format != "WEBP":
        return image.format or "unknown"
    # RIFF chunks after the 12 bytes of "RIFF", length, "WEBP"; VP8L is the lossless coding, VP8 the lossy one.
    at = 12
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8L", b"VP8 "):
            return "WebP lossless" if name == b"VP8L" else "WebP lossy"
        at += 8 + length + length % 2
    return "WebP"


def _bit_depth(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":  # Pillow reduces 16-bit colour without saying so
        return 16 if data[24:25] == b"\x10" else 8
    return 16 if image.mode.startswith("I") or image.mode == "F" else 8


def _subsampling(image: Image.Image) -> str:
    if image.mode == "L":
        return "grey"
    return _SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "other")


def _tables(image: Image.Image) -> tuple[int, str]:
    """Name quality and quantisation tables of a JPEG: 64 steps each, luminance first."""
    tables = [np.asarray(values) for values in getattr(image, "quantization", {}).values()]
    if not tables:
        raise ValueError("a JPEG without quantisation tables")
    digest = hashlib.sha256(b"".join(table.astype("<u2").tobytes() for table in tables)).hexdigest()[:8]
    standard_luma, standard_chroma = _standard_tables()
    distance = np.abs(standard_luma - tables[0]).sum(1)
    index = int(distance.argmin())
    same = distance[index] == 0 and (len(tables) == 1 or np.array_equal(tables[1], standard_chroma[index]))
    return index + 1, f"standard {digest}" if same else digest


@functools.cache
def _standard_tables() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the standard's tables of luminance and chrominance for qualities 1 to 100, each (100, 64)."""
    tables_of_quality = []
    for quality in range(1, 101):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            tables_of_quality.append([image.quantization[0], image.quantization[1]])  # type: ignore[attr-defined]
    tables = np.array(tables_of_quality)
    return tables[:, 0], tables[:, 1]
