"""Scores of frames -> verdicts over time: smoothing with hysteresis, scene cuts, segments, one verdict per video.

Margins (log-odds) are averaged, not probabilities: a mean of margins is the margin of the geometric mean, and stays
calibrated where frames of one scene say the same thing over and over, as they nearly do; their sum would not. The mean
of a whole video passes through a separate calibration, fitted on H.264 clips, where the model's card has one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Calibration, Decision, Verdict, VideoRule, sigmoid
from asr_runtime.records import SegmentRecord, VideoRecord

__all__ = ["CUT", "HYSTERESIS", "TIME_CONSTANT", "SceneCuts", "Steady", "Track"]

TIME_CONSTANT = 1.0
"""Seconds after which a frame's weight has fallen to 1/e."""
HYSTERESIS = 0.5
"""Log-odds by which the smoothed probability must leave the range of a verdict before the verdict changes."""
CUT = 30.0
"""Mean absolute difference of two thumbnails, 0..255, from which on a cut lies between them."""

_FORGET = 2.0  # seconds without a frame that has content to judge, after which the segment ends
_LIMIT = 12.0  # log-odds; one frame at exactly 0 or 1 must not outweigh all others for ever
_THUMBNAIL = (32, 32)
_SAMPLES = 128  # rows, or columns, of which thumbnails are made
_UNUSUAL = 3.0  # so that a fast pan or a noisy picture does not count as many cuts


class Steady(NamedTuple):
    """The state after a frame, combined with the frames before it.

    Attributes:
        smoothed: probability over the latest frames of the scene.
        verdict: of the segment that the frame belongs to.
        ended: the segment that ended before this frame; None if none did.
    """

    smoothed: float
    verdict: Verdict
    ended: SegmentRecord | None


class Track:
    """The scores of one source, in order.

    Args:
        source: its name in records.
        decision: the decision rule of the model's card.
        video: the card's rule for whole videos.
    """

    def __init__(self, source: str, decision: Decision, video: VideoRule | None = None) -> None:
        self.source = source
        self._decision = decision
        self._rule = video or VideoRule(Calibration(), decision)
        self._cuts = SceneCuts()
        self._weighted = self._weight = 0.0
        self._last = 0.0
        self._segment: _Segment | None = None
        self._video = _Segment(0.0, "unsure")
        self._reason: str | None = None

    def add(self, time: float, probability: float, image: NDArray[np.uint8], reason: str | None = None) -> Steady:
        """Add the score of the next frame.

        Args:
            time: seconds, as `FrameRecord.time`.
            probability: of the frame alone.
            image: the frame, to see where scenes change.
            reason: why the frame has no content to judge; None: it has. Such a frame has no weight. Its scene is
                `unsure` until a frame with weight arrives, and again when none has arrived for 2 s.
        """
        margin = _margin(probability)
        is_forgotten = reason is not None and self._weight > 0 and time - self._last > _FORGET
        ended = self.end() if self._cuts.between(image) or is_forgotten else None
        if reason is None:
            decay = math.exp(-max(0.0, time - self._last) / TIME_CONSTANT)
            self._weighted = self._weighted * decay + margin
            self._weight = self._weight * decay + 1.0
            self._last = time
        else:
            self._reason = reason
        smoothed = self._weighted / self._weight if self._weight else margin
        verdict: Verdict = self._verdict(smoothed) if self._weight else "unsure"
        if self._segment is not None and self._segment.verdict != verdict:
            ended = self._close()
        if self._segment is None:
            self._segment = _Segment(time, verdict)
        has_weight = reason is None
        self._segment.add(time, probability, margin, has_weight)
        if not self._video.frames:
            self._video.start = time
        self._video.add(time, probability, margin, has_weight)
        return Steady(sigmoid(smoothed), verdict, ended)

    def end(self) -> SegmentRecord | None:
        """Forget the frames so far, for example at a cut. Return the segment that ends here, if there is one."""
        self._weighted = self._weight = 0.0
        return self._close()

    def video(self) -> VideoRecord | None:
        """Pool all frames so far; None if there were none."""
        if not (whole := self._video).frames:
            return None
        pooled = self._rule.calibration.probability(whole.margins / whole.counted)
        reason = None if whole.has_weight else self._reason
        verdict = "unsure" if reason else self._rule.decision.verdict(pooled)
        return VideoRecord(self.source, pooled, verdict, whole.peak, whole.frames, whole.end - whole.start, reason)

    def _close(self) -> SegmentRecord | None:
        if (segment := self._segment) is None:
            return None
        self._segment = None
        mean = segment.total / segment.counted
        return SegmentRecord(
            self.source, segment.start, segment.end, segment.verdict, mean, segment.peak, segment.frames
        )

    def _verdict(self, smoothed: float) -> Verdict:
        """Keep the segment's verdict while the margin is within `HYSTERESIS` of its range."""
        new = self._decision.verdict(sigmoid(smoothed))
        if self._segment is None or (old := self._segment.verdict) == new:
            return new
        towards = -HYSTERESIS if new == "real" or (new == "unsure" and old == "ai") else HYSTERESIS
        with_hysteresis = self._decision.verdict(sigmoid(smoothed - towards))
        return old if with_hysteresis == old else new


class _Segment:
    """Sums over the frames that have weight; over all frames until the first one that has."""

    def __init__(self, start: float, verdict: Verdict) -> None:
        self.start = self.end = start
        self.verdict = verdict
        self.frames, self.has_weight = 0, False
        self.counted, self.total, self.margins, self.peak = 0, 0.0, 0.0, 0.0

    def add(self, time: float, probability: float, margin: float, has_weight: bool) -> None:
        self.end = time
        self.frames += 1
        if has_weight and not self.has_weight:
            self.has_weight = True
            self.counted, self.total, self.margins, self.peak = 0, 0.0, 0.0, 0.0
        if has_weight == self.has_weight:
            self.counted += 1
            self.total += probability
            self.margins += margin
            self.peak = max(self.peak, probability)


class SceneCuts:
    """Detects cuts: the thumbnails of two successive frames differ much, and more than those of the frames before."""

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None
        self._usual: float | None = None

    def between(self, image: NDArray[np.uint8]) -> bool:
        """Whether there is a cut between the frame seen before and this one."""
        step = max(1, min(image.shape[:2]) // _SAMPLES)  # some of the pixels are enough, and ten times as quick
        small = cv2.resize(image[::step, ::step], _THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.int16)
        before, self._before = self._before, small
        if before is None:
            return False
        difference = float(np.abs(small - before).mean())
        usual = self._usual
        self._usual = difference if usual is None else 0.7 * usual + 0.3 * difference
        return difference >= max(CUT, _UNUSUAL * (usual or 0.0))


def _margin(probability: float) -> float:
    if not 0.0 < probability < 1.0:
        return math.copysign(_LIMIT, probability - 0.5)
    return min(_LIMIT, max(-_LIMIT, math.log(probability / (1.0 - probability))))
