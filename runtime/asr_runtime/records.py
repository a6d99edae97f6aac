"""The records of a screening: one per image, frame or failed input, one per segment and video, and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from asr_runtime.claims import Claim, contradictions
from asr_runtime.contract import Verdict
from asr_runtime.windows import LookKind, Window

__all__ = [
    "ErrorRecord",
    "FrameRecord",
    "ImageRecord",
    "Record",
    "SegmentRecord",
    "SourceState",
    "StateRecord",
    "SummaryRecord",
    "VideoRecord",
]

SourceState = Literal["connecting", "live", "stalled", "lost"]
"""State of a live source. connecting: it is being opened; live: frames arrive; stalled: it is open, but no new frame
arrives; lost: it cannot be opened, or the connection broke. A lost source is opened again, or given up."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The score of one image.

    Attributes:
        source: its path, or `-` for an image from standard input.
        probability: calibrated P(AI-generated), 0..1.
        verdict: by the decision rule of the model's card; always `unsure` where `reason` is given.
        look: which part was scored: the centre of the picture, or windows all over it.
        windows: windows that were scored, the centre first; empty unless they were asked for.
        reason: why the image has no content to judge (`inference.flatness`); None: it has.
        claims: what the file says about its own origin; None: claims were not asked for.
    """

    source: str
    probability: float
    verdict: Verdict
    look: LookKind = "centre"
    windows: tuple[Window, ...] = ()
    reason: str | None = None
    claims: tuple[Claim, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        data: dict[str, Any] = {
            "type": "image",
            "source": self.source,
            "probability": self.probability,
            "verdict": self.verdict,
            **_looked(self.look, self.windows),
            **_claimed(self.claims, self.verdict),
        }
        return data if self.reason is None else {**data, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """The score of one video frame.

    Attributes:
        source: path of the video, or name of the live source.
        frame: index from 0 among all frames received, skipped and dropped ones included.
        time: presentation time in seconds; of a live source the Unix time at which the frame was received.
        probability: calibrated P(AI-generated) of this frame alone, 0..1.
        verdict: of this frame alone, by the decision rule of the model's card; always `unsure` where `reason` is given.
        smoothed: probability over the latest frames of the same scene; see `asr_runtime.screening.smoothing`.
        steady: verdict of the segment that the frame belongs to: `smoothed` with hysteresis.
        repeated: the frame equals the one scored before, pixel by pixel, so it has the same score.
        age: seconds from reception to score; live sources only, otherwise None.
        dropped: frames of this live source that were dropped for newer ones since its last record.
        look: as `ImageRecord.look`.
        windows: as `ImageRecord.windows`.
        reason: why the frame has no content to judge (`inference.flatness`); such a frame has no weight in `smoothed`.
    """

    source: str
    frame: int
    time: float
    probability: float
    verdict: Verdict
    smoothed: float
    steady: Verdict
    repeated: bool = False
    age: float | None = None
    dropped: int = 0
    look: LookKind = "centre"
    windows: tuple[Window, ...] = ()
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        data: dict[str, Any] = {
            "type": "frame",
            "source": self.source,
            "frame": self.frame,
            "time": round(self.time, 6),
            "probability": self.probability,
            "verdict": self.verdict,
            "smoothed": self.smoothed,
            "steady": self.steady,
        }
        if self.repeated:
            data["repeated"] = True
        if self.age is not None:
            data |= {"age": round(self.age, 4), "dropped": self.dropped}
        if self.reason is not None:
            data["reason"] = self.reason
        return data | _looked(self.look, self.windows)


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A stretch of one scene with one steady verdict; reported when it ends.

    Attributes:
        source: path of the video, or name of the live source.
        start: time of its first frame, seconds, as `FrameRecord.time`.
        end: time of its last frame.
        verdict: the steady verdict.
        probability: mean of the frames' probabilities.
        peak: largest of the frames' probabilities.
        frames: number of frames that were scored.
    """

    source: str
    start: float
    end: float
    verdict: Verdict
    probability: float
    peak: float
    frames: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        return {
            "type": "segment",
            "source": self.source,
            "start": round(self.start, 6),
            "end": round(self.end, 6),
            "verdict": self.verdict,
            "probability": self.probability,
            "peak": self.peak,
            "frames": self.frames,
        }


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """The score of a whole video file, after its last frame.

    Attributes:
        source: its path.
        probability: pooled over the scored frames; see `asr_runtime.screening.smoothing`.
        verdict: by the decision rule of the model's card.
        peak: largest of the frames' probabilities.
        frames: number of frames that were scored.
        duration: seconds from the first to the last scored frame.
        reason: why no frame of the video has content to judge; None: some have, and the others have no weight.
        note: remarkable facts about a file that was read completely: several video tracks, frames of several sizes, a
            clock that jumps, a missing index; None: there are none.
        claims: what the file says about its own origin; None: claims were not asked for.
    """

    source: str
    probability: float
    verdict: Verdict
    peak: float
    frames: int
    duration: float
    reason: str | None = None
    claims: tuple[Claim, ...] | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        data: dict[str, Any] = {
            "type": "video",
            "source": self.source,
            "probability": self.probability,
            "verdict": self.verdict,
            "peak": self.peak,
            "frames": self.frames,
            "duration": round(self.duration, 6),
            **_claimed(self.claims, self.verdict),
        }
        texts = {"reason": self.reason, "note": self.note}
        return data | {name: text for name, text in texts.items() if text is not None}


@dataclass(frozen=True, slots=True)
class StateRecord:
    """A live source changed its state.

    Attributes:
        source: its name.
        state: the new state.
        time: of the change, Unix time in seconds.
        detail: one line that says why, for `stalled` and `lost`.
        retry: seconds until the next attempt; None: none is due, or the source is given up.
        given_up: the source will not be opened again.
    """

    source: str
    state: SourceState
    time: float
    detail: str = ""
    retry: float | None = None
    given_up: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        data: dict[str, Any] = {
            "type": "state",
            "source": self.source,
            "state": self.state,
            "time": round(self.time, 6),
            "detail": self.detail,
        }
        if self.retry is not None:
            data["retry"] = round(self.retry, 3)
        if self.given_up:
            data["given_up"] = True
        return data


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """One input, or one part of it, that could not be scored.

    Attributes:
        source: the path or pattern, or the name of the live source.
        kind: class name of the error (`SourceError`, `DecodeError`, `InferenceError`, `DeadlineError`).
        error: the message, one line.
        frame: index of the frame, if a single frame failed.
    """

    source: str
    kind: str
    error: str
    frame: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        data = {"type": "error", "source": self.source, "kind": self.kind, "error": self.error}
        return data if self.frame is None else {**data, "frame": self.frame}


@dataclass(frozen=True, slots=True)
class SummaryRecord:
    """The totals of a run: `read == scored + failed + dropped + skipped`. `ignored` is not part of `read`.

    Attributes:
        read: images, frames and failures.
        scored: image and frame records.
        failed: error records.
        dropped: frames of live sources that were dropped for newer ones because scoring was too slow; 0 for files.
        skipped: frames that were not scored because of `fps`.
        ignored: files in folders that are neither pictures nor videos, or belong to the operating system.
        reconnects: how often the connection to a live source was restored; 0 for files.
        given_up: live sources that were given up; 1 if inference itself was given up.
        seconds: from the first read to the last score.
        model: name or path of the model.
        sha256: of the model file.
        provider: onnxruntime's execution provider that ran it, or `openvino fp32`, or `openvino bf16`.
        looks: which look (`ImageRecord.look`) was used for `images`, frames of `videos` and frames of `cameras`.
    """

    read: int
    scored: int
    failed: int
    dropped: int
    skipped: int
    ignored: int
    reconnects: int
    given_up: int
    seconds: float
    model: str
    sha256: str
    provider: str
    looks: Mapping[str, LookKind]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        return {
            "type": "summary",
            "read": self.read,
            "scored": self.scored,
            "failed": self.failed,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "ignored": self.ignored,
            "reconnects": self.reconnects,
            "given_up": self.given_up,
            "seconds": round(self.seconds, 3),
            "model": self.model,
            "sha256": self.sha256,
            "provider": self.provider,
            "looks": dict(self.looks),
        }


def _claimed(claims: tuple[Claim, ...] | None, verdict: Verdict) -> dict[str, Any]:
    """Return what a record says of the claims of the file, and where they contradict its verdict."""
    if claims is None:
        return {}
    data: dict[str, Any] = {"claims": [claim.to_dict() for claim in claims]}
    conflicts = contradictions(claims, verdict)
    return {**data, "contradictions": conflicts} if conflicts else data


def _looked(look: LookKind, windows: tuple[Window, ...]) -> dict[str, Any]:
    """Return what a record says of the look; nothing of the centre alone, so that its records stay as they were."""
    data: dict[str, Any] = {} if look == "centre" else {"look": look}
    return data | ({"windows": [window.to_dict() for window in windows]} if windows else {})


Record = ImageRecord | FrameRecord | SegmentRecord | VideoRecord | StateRecord | ErrorRecord | SummaryRecord
