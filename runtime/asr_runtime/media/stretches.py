"""Frames of one size, and the decoders that give them at that size."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.media.capture import open_ffmpeg
from asr_runtime.media.packets import Codec, Size

__all__ = ["Beside", "Stretch", "open_packets", "packets_of"]

_END_AFTER = 1000  # failed reads in a row, as for the file itself


def packets_of(capture: cv2.VideoCapture) -> cv2.VideoCapture:
    """Let a capture give packets, as they are in the file, in place of frames."""
    capture.set(cv2.CAP_PROP_FORMAT, -1)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # or it turns the bytes of packets
    return capture


class Stretch:
    """Frames of one size, from a key frame on, and the decoder that gives them at this size."""

    size: Size = (0, 0)  # known when its first frame is shown

    def __init__(self, setup: bytes | None, first: int, time: float, follows_time: bool) -> None:
        self.setup, self.first, self.time, self.follows_time = setup, first, time, follows_time
        self.collects = True
        self.is_between = False  # it begins between key frames
        self.packets: deque[bytes] = deque()
        self._capture: cv2.VideoCapture | None = None
        self._has_frame = False

    def open(self, codec: Codec, more: Callable[[], bool]) -> None:
        """Begin to decode; `more` reads one further packet of the video, False at its end."""
        self._stream = _Stream(codec, self, more)
        self._capture = open_packets(codec, self._stream)

    def grab(self) -> None:
        """Go on by one frame."""
        if self._capture is not None:
            self._has_frame = any(self._capture.grab() for _ in range(_END_AFTER))
            if not self._has_frame:
                self.close()

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Return the frame, uint8 BGR `(H, W, 3)`; None if there is none of this size."""
        if self._capture is None or not self._has_frame:
            return None
        ok, image = self._capture.retrieve()
        if not ok or image is None or (image.shape[1], image.shape[0]) != self.size:
            return None
        return image.astype(np.uint8, copy=False)

    def close(self) -> None:
        """Release the captures."""
        self.collects = False
        self.packets.clear()
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class Beside:
    """Decodes the video a second time, from a key frame on, for its frames of one size; the others come out scaled.

    Args:
        packets: of the video.
        codec: of the video; packets of an IVF file, whose header says the size that frames come out with.
        size: of the frames that are wanted.
        first: packet to begin with.
        behind: frames after it that were shown already.
    """

    def __init__(self, packets: cv2.VideoCapture, codec: Codec, size: Size, first: int, behind: int) -> None:
        self._packets = packets
        for _ in range(first):
            packets.grab()
        self._stream = _PacketStream(packets, codec, size)
        # Without a decoder FFmpeg leaves the size as the header has it; OpenCV decodes all the same.
        self._capture = open_packets(codec, self._stream, "|codec_whitelist;none")
        for _ in range(behind):
            self._capture.grab()

    def grab(self) -> None:
        """Go on by one frame."""
        self._capture.grab()

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Return the frame, uint8 BGR `(H, W, 3)`; None if there is none of this size."""
        ok, image = self._capture.retrieve()
        return image.astype(np.uint8, copy=False) if ok and image is not None else None

    def close(self) -> None:
        """Release the captures."""
        self._capture.release()
        self._packets.release()


class _PacketStream(io.BufferedIOBase):
    """The packets that a capture gives as one file."""

    def __init__(self, packets: cv2.VideoCapture, codec: Codec, size: Size) -> None:
        super().__init__()
        self._packets, self._codec = packets, codec
        self._rest = codec.head(size)
        self._number = 0

    def read(self, size: int | None = -1, /) -> bytes:
        if not self._rest and self._packets.grab():
            ok, packet = self._packets.retrieve()
            if ok and packet is not None:
                self._rest = self._codec.framed(packet.tobytes(), self._number)
                self._number += 1
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return -1


class _Stream(io.BufferedIOBase):
    """The packets of a stretch as one file, read as they are needed."""

    def __init__(self, codec: Codec, stretch: Stretch, more: Callable[[], bool]) -> None:
        super().__init__()
        self._codec, self._stretch, self._more = codec, stretch, more
        self._rest = codec.head(stretch.size)
        self._number = 0

    def read(self, size: int | None = -1, /) -> bytes:
        while not self._rest:
            if self._stretch.packets:
                self._rest = self._codec.framed(self._stretch.packets.popleft(), self._number)
                self._number += 1
            elif not (self._stretch.collects and self._more()):
                return b""
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return -1


def open_packets(codec: Codec, stream: io.BufferedIOBase, options: str = "") -> cv2.VideoCapture:
    """Open a decoder of packets; it reads nothing but the stream."""
    return open_ffmpeg(stream, f"protocol_whitelist;none|format_whitelist;{codec.demuxer}{options}")
