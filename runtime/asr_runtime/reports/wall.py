"""What the live wall shows: newest scored picture, state, rate and segments of every source, and flagged pictures.

The scoring thread calls `observe`, which only stores; the server's thread asks for `state` and pictures. A picture is
encoded when it is asked for, once for all viewers, so viewers cost the screening next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.records import (
    ErrorRecord,
    FrameRecord,
    ImageRecord,
    Record,
    SegmentRecord,
    StateRecord,
    SummaryRecord,
)
from asr_runtime.reports.jpeg import jpeg

__all__ = ["Wall"]

FROZEN_AFTER = 2.0
"""Seconds of equal pictures after which a source counts as frozen, though frames still come."""
_PICTURE_SIDE, _FLAGGED_SIDE = 640, 320  # pixels: longer side of what is sent to a page
_QUALITY = 80  # of JPEG
_SEGMENTS, _FLAGGED = 120, 24  # that are shown: segments of each source, flagged pictures of all sources
_RATE_OVER = 5.0  # seconds over which frames per second are counted
_FILES = 100  # files beside the cameras; the newest are shown


@dataclass(slots=True)
class _Tile:
    """One source."""

    name: str
    number: int
    is_live: bool
    state: str
    since: float  # Unix time of the state
    detail: str = ""
    picture: NDArray[np.uint8] | None = None
    version: int = 0  # of the picture
    jpeg: bytes | None = None  # of this version
    verdict: str | None = None
    probability: float | None = None
    received: float | None = None  # Unix time at which the newest scored picture was received
    changed: float | None = None  # Unix time at which the picture last differed from the one before
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=512))
    segments: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=_SEGMENTS))
    segment_start: float | None = None
    errors: int = 0


class Wall:
    """Collects the records of a run and returns, at any moment, the state that a viewer should see.

    Args:
        live: names of the live sources, shown from the start as `connecting`.
    """

    def __init__(self, live: tuple[str, ...] = ()) -> None:
        self._lock = threading.Lock()
        self._tiles: dict[str, _Tile] = {}
        self._numbers = 0
        self._flagged: deque[dict[str, Any]] = deque(maxlen=_FLAGGED)
        self._flagged_count = 0
        self._summary: dict[str, Any] | None = None
        for name in live:
            self._tile(name, is_live=True)

    def observe(self, record: Record, picture: NDArray[np.uint8] | None) -> None:
        """Take one record of the run and its picture (uint8 BGR, H x W x 3), which must not be changed afterwards."""
        with self._lock:
            if isinstance(record, SummaryRecord):
                self._summary = record.to_dict()
            elif isinstance(record, StateRecord):
                tile = self._tile(record.source, is_live=True)
                tile.state, tile.since, tile.detail = record.state, record.time, record.detail
                if record.state != "live":
                    tile.arrivals.clear()
            elif isinstance(record, ErrorRecord):
                tile = self._tile(record.source)
                tile.errors += 1
                tile.detail = record.error
            elif isinstance(record, SegmentRecord):
                self._segment(record)
            elif isinstance(record, FrameRecord | ImageRecord):
                self._scored(record, picture)

    def state(self) -> dict[str, Any]:
        """Return what a page shows, as plain JSON data. Ages are seconds at this moment."""
        now = time.time()
        with self._lock:
            return {
                "now": now,
                "sources": [self._shown(tile, now) for tile in self._tiles.values()],
                "flagged": [{k: v for k, v in entry.items() if k != "jpeg"} for entry in reversed(self._flagged)],
                "flagged_count": self._flagged_count,
                "summary": self._summary,
            }

    def picture(self, number: int) -> bytes | None:
        """Return the newest scored picture of a source as JPEG; None for an unknown source or one without a picture."""
        with self._lock:
            tile = next((tile for tile in self._tiles.values() if tile.number == number), None)
            if tile is None or tile.picture is None:
                return None
            if tile.jpeg is not None:
                return tile.jpeg
            picture, version = tile.picture, tile.version
        encoded = jpeg(picture, _QUALITY, _PICTURE_SIDE)  # outside the lock, for which the scoring thread may wait
        with self._lock:
            if tile.version == version:
                tile.jpeg = encoded
        return encoded

    def flagged(self, number: int) -> bytes | None:
        """Return a flagged picture as JPEG; None if it has made room for newer ones."""
        with self._lock:
            return next((entry["jpeg"] for entry in self._flagged if entry["number"] == number), None)

    def _tile(self, name: str, *, is_live: bool = False) -> _Tile:
        if name not in self._tiles:
            self._tiles[name] = _Tile(name, self._numbers, is_live, "connecting" if is_live else "file", time.time())
            self._numbers += 1
            files = [other for other, tile in self._tiles.items() if not tile.is_live]
            if len(files) > _FILES:
                del self._tiles[files[0]]
        return self._tiles[name]

    def _segment(self, record: SegmentRecord) -> None:
        tile = self._tile(record.source)
        tile.segments.append({"start": record.start, "end": record.end, "verdict": record.verdict})
        tile.segment_start = None

    def _scored(self, record: FrameRecord | ImageRecord, picture: NDArray[np.uint8] | None) -> None:
        tile = self._tile(record.source)
        now = time.time()
        verdict, probability, age, is_new = record.verdict, record.probability, 0.0, True
        if isinstance(record, FrameRecord):  # the number is the one that the verdict is made of
            verdict, probability, age, is_new = record.steady, record.smoothed, record.age or 0.0, not record.repeated
            if tile.segment_start is None:
                tile.segment_start = record.time
        if verdict == "ai" and tile.verdict != "ai" and picture is not None:
            self._flag(tile, record.probability, now, picture)
        tile.verdict, tile.probability, tile.received = verdict, probability, now - age
        tile.arrivals.append(now)
        if is_new or tile.changed is None:
            tile.changed = now - age
        if picture is not None:
            tile.picture, tile.jpeg = picture, None
            tile.version += 1

    def _flag(self, tile: _Tile, probability: float, now: float, picture: NDArray[np.uint8]) -> None:
        self._flagged_count += 1
        entry = {"number": self._flagged_count, "source": tile.name, "time": now, "probability": probability}
        self._flagged.append({**entry, "jpeg": jpeg(picture, _QUALITY, _FLAGGED_SIDE)})

    def _shown(self, tile: _Tile, now: float) -> dict[str, Any]:
        recent = [moment for moment in tile.arrivals if now - moment < _RATE_OVER]
        is_frozen = (
            tile.state == "live"
            and tile.changed is not None
            and tile.received is not None
            and tile.received - tile.changed > FROZEN_AFTER
        )
        return {
            "number": tile.number,
            "name": tile.name,
            "live": tile.is_live,
            "state": "frozen" if is_frozen else tile.state,
            "since": tile.changed if is_frozen else tile.since,
            "detail": "every frame equals the one before" if is_frozen else tile.detail,
            "version": tile.version,
            "verdict": tile.verdict,
            "probability": tile.probability,
            "age": None if tile.received is None else max(0.0, now - tile.received),
            "rate": len(recent) / _RATE_OVER,
            "errors": tile.errors,
            "segments": list(tile.segments),
            "segment_start": tile.segment_start,
        }
