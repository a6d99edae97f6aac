"""What a screening reports: one record per image, frame or failed input, and a summary at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from asr_runtime.contract import Verdict

__all__ = ["ErrorRecord", "FrameRecord", "ImageRecord", "Record", "SummaryRecord"]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The score of one image.

    Attributes:
        source: its path, or `-` for an image from standard input.
        probability: calibrated P(AI-generated), 0..1.
        verdict: by the decision rule of the model's card.
    """

    source: str
    probability: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        return {
            "type": "image",
            "source": self.source,
            "probability": self.probability,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """The score of one video frame.

    Attributes:
        source: path of the video.
        frame: index from 0; frames skipped by `fps` count.
        time: presentation time in seconds.
        probability: calibrated P(AI-generated), 0..1.
        verdict: by the decision rule of the model's card.
    """

    source: str
    frame: int
    time: float
    probability: float
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        return {
            "type": "frame",
            "source": self.source,
            "frame": self.frame,
            "time": round(self.time, 6),
            "probability": self.probability,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """One input, or one part of it, that could not be scored.

    Attributes:
        source: the path or pattern.
        kind: class name of the error (`SourceError`, `DecodeError`, `InferenceError`).
        error: the message, one line.
        frame: index of the frame, where it was one frame that failed.
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
    """The account of a run: `read == scored + failed + dropped + skipped`.

    Attributes:
        read: images, frames and failures met.
        scored: image and frame records.
        failed: error records.
        dropped: frames that a live source lost because scoring was behind; 0 for files.
        skipped: frames passed over by `fps`.
        reconnects: of live sources; 0 for files.
        seconds: from the first read to the last score.
        model: name or path of the model.
        sha256: of the model file.
        provider: onnxruntime's execution provider that ran it.
    """

    read: int
    scored: int
    failed: int
    dropped: int
    skipped: int
    reconnects: int
    seconds: float
    model: str
    sha256: str
    provider: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        return {
            "type": "summary",
            "read": self.read,
            "scored": self.scored,
            "failed": self.failed,
            "dropped": self.dropped,
            "skipped": self.skipped,
            "reconnects": self.reconnects,
            "seconds": round(self.seconds, 3),
            "model": self.model,
            "sha256": self.sha256,
            "provider": self.provider,
        }


Record = ImageRecord | FrameRecord | ErrorRecord | SummaryRecord
