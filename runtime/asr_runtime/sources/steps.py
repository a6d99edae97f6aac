"""One source -> its pictures: the steps of decoding, the same in this process and in a separate one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.claims import Claim
from asr_runtime.errors import DecodeError, InputError, SourceError
from asr_runtime.media.image import decode_image, read_image
from asr_runtime.media.video import VideoFile
from asr_runtime.sources.expand import Source, Unreadable

__all__ = ["Decoded", "decode_here", "decode_source"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One step: an image, a frame, a failure, only `skipped` frames, or the end of a video.

    Attributes:
        source: name of the source.
        image: uint8 `(H, W, 3)`, BGR; None for a failure or an end.
        frame: index of a video's frame, from 0; None for an image.
        time: of a frame, seconds.
        error: why there is no picture.
        skipped: frames before this one that were not decoded because of `fps`.
        ends: the video is over.
        note: with the end of a video, what else to know about it; see `VideoRecord.note`.
        claims: what the file says about its origin, with an image or the end of a video; None: not asked for.
    """

    source: str
    image: NDArray[np.uint8] | None = None
    frame: int | None = None
    time: float = 0.0
    error: InputError | None = None
    skipped: int = 0
    ends: bool = False
    note: str | None = None
    claims: tuple[Claim, ...] | None = None


def decode_source(source: Source | Unreadable, fps: float | None) -> Iterator[Decoded]:
    """Decode an image or a video file.

    Args:
        source: as `sources.expand` gives it.
        fps: frames wanted per second of video; None: all.

    Yields:
        Pictures in order. What cannot be read gives an error instead; a damaged video its frames, then its end, then
        an error that says it is partial.
    """
    name = source.name
    if isinstance(source, Unreadable):
        yield Decoded(name, error=source.error)
        return
    try:
        if source.kind == "video":
            yield from _decode_video(source, fps)
        elif source.data is not None:
            yield Decoded(name, decode_image(source.data, name))
        else:
            yield Decoded(name, read_image(source.path or name, name))
    except InputError as error:
        yield Decoded(name, error=error)


def decode_here(source: Source | Unreadable, fps: float | None) -> Iterator[Decoded]:
    """Decode as `decode_source` does, in the process that also does everything else.

    A source that takes more memory than there is, or that brings OpenCV to fail, gives its own error; those
    after it are not affected.
    """
    frames = 0
    try:
        for step in decode_source(source, fps):
            frames += step.frame is not None
            yield step
        return
    except MemoryError:
        what = "decoding takes more memory than there is; scale it down"
    except cv2.error as error:
        what = f"OpenCV failed ({error.err or error})"
    if frames:
        yield Decoded(source.name, ends=True)
        what += f"; {frames} frames were decoded before"
    yield Decoded(source.name, error=DecodeError(f"{source.name}: {what}"))


def _decode_video(source: Source, fps: float | None) -> Iterator[Decoded]:
    name = source.name
    video = VideoFile(source.path or name, fps, name=name)
    skipped_before = scored = 0
    for number, seconds, image in video:
        yield Decoded(name, image, number, seconds, skipped=video.skipped - skipped_before)
        skipped_before = video.skipped
        scored += 1
    yield Decoded(name, skipped=video.skipped - skipped_before, ends=True, note=video.notes())
    if damage := video.damage():
        raise SourceError(f"{name}: partial, {scored} frames were scored: {damage}")
