"""Presentation times of frames, and the choice of frames for a frame rate."""

from __future__ import annotations

import math

import cv2

__all__ = ["Clock", "Sampler"]

_LONGEST_REORDERING = 16  # frames; the limit of H.264 and HEVC
_LONGEST_GAP = 30.0  # seconds between two frames, in a container that does not say how long it is


class Clock:
    """Presentation times of the frames grabbed, in seconds from the start of the stream; they increase.

    Args:
        capture: that grabs the frames.
        is_avi: the container knows only when a frame is decoded.
        seconds: that the container says the video lasts; None: it does not say.
        latest: seconds that no frame of a sound file reaches.

    Attributes:
        start: of the first frame, by the clock of the container.
        latest: time of the latest frame; 0 before the first.
        longest: seconds between two frames, at most.
        jump: the first step of the container's clock that cannot be: its seconds, and the time of the frame before.
    """

    def __init__(self, capture: cv2.VideoCapture, is_avi: bool, seconds: float | None, latest: float) -> None:
        self._capture = capture
        self._step = 1.0 / _frame_rate(capture)
        self._is_avi = is_avi
        self._believed_until = 0.0 if seconds is None else min(seconds + 1.0, latest)
        self._latest = latest
        self._late = 0.0
        self._time: float | None = None
        self.start, self.latest, self.longest = 0.0, 0.0, self._step
        self.jump: tuple[float, float] | None = None

    def time(self) -> float:
        """Return the time of the frame grabbed last; call it once for each."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if self._time is None:
            # Of a frame in an AVI only the time of its decoding is known, later by the frames it waited for.
            if self._is_avi and stamp <= _LONGEST_REORDERING * self._step:
                self._late = stamp
            self._time = max(0.0, stamp - self._late)
            self.start = self._capture.get(cv2.CAP_PROP_PTS) * self._step  # it counts in periods of the frame rate
            return self._time
        after = stamp - self._late - self._time
        longest = _LONGEST_GAP if self._time + after <= self._latest else 0.0
        if after > longest and self._time + after > self._believed_until:
            # The clock was set, or the stamp is the nonsense of damaged data: time goes on from the frame before.
            self.jump = self.jump or (after, self._time)
            self._late += after - self._step
            after = self._step
        elif after < -_LONGEST_GAP and self._late > 0:
            self._late += after - self._step  # back from nonsense
            after = self._step
        # Not later than the frame before: no time (raw streams: always 0), or one out of order.
        step = after if after > 0 else self._step
        self.longest = max(self.longest, step)
        self._time = self.latest = self._time + step
        return self._time


class Sampler:
    """Picks the first frame of each interval of 1/fps seconds; steady under variable frame rates."""

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._slot = -math.inf

    def wants(self, time: float) -> bool:
        """Tell whether a frame shown at `time` is the first of its interval; call it once for each, in order."""
        if self._fps is None:
            return True
        slot = math.floor(time * self._fps + 1e-6)
        wanted = slot > self._slot
        self._slot = max(slot, self._slot)
        return wanted


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0
