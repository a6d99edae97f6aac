"""Frames whose size changes within a video: OpenCV scales all to the size of the first and gives no warning.

The packets of the file are read beside its decoder. Where a key frame sets another size, a new decoder begins there
and gives its frames as they are, as long as they show what the decoder of the file shows.
"""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.media.contents import Contents
from asr_runtime.media.packets import Codec, Size, codec_of
from asr_runtime.media.stretches import Beside, Stretch, open_packets, packets_of
from asr_runtime.media.vp9 import FrameSizes

__all__ = ["OwnSizes"]

_REORDERING = 17  # packets between the one that is read and the frame that is shown
_SAME_TIME = 1.0  # milliseconds
_MOST_SIZES = 4  # decoders beside each other
_UNLIKE = 32.0  # levels by which a picture may differ from itself after it was scaled
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_INTRA = ord("I")


class OwnSizes:
    """Gives every frame of a video at its own size; call `grabbed` after each frame that was grabbed.

    Args:
        reopen: opens the video once more, for its packets.
        decoder: the capture that decodes the video.
        contents: what the container says of the video.
        largest: most pixels of a frame.

    Attributes:
        scaled: frames that `picture` could only give at the size of the first ones.
        sizes: that the frames were coded in so far, in order, without repetitions.
    """

    def __init__(
        self,
        reopen: Callable[[], cv2.VideoCapture],
        decoder: cv2.VideoCapture,
        contents: Contents,
        largest: int,
    ) -> None:
        self._reopen, self._decoder, self._largest = reopen, decoder, largest
        self._packets = packets_of(reopen())
        self._has_times = contents.has_times and not math.isnan(contents.skipped)
        self._rotation = int(decoder.get(cv2.CAP_PROP_ORIENTATION_META)) % 360
        size = int(decoder.get(cv2.CAP_PROP_FRAME_WIDTH)), int(decoder.get(cv2.CAP_PROP_FRAME_HEIGHT))
        self._given: Size = size[::-1] if self._rotation in (90, 270) else size
        self._codec: Codec | None = None
        self._follower: FrameSizes | None = None
        self._known: dict[bytes | None, Size | None] = {}  # what sets a size, and the size
        self._stretches = deque([Stretch(None, 0, 0.0, follows_time=True)])
        self._stretches[0].size, self._stretches[0].collects = self._given, False
        self._read = 0  # packets
        self._latest_time = -math.inf
        self._clock_runs = False
        self._recent: deque[float] = deque(maxlen=_REORDERING)  # times of the packets that were read last
        self._frame = -1
        self._shown = 0
        self._latest = math.inf if contents.seconds is None else 1000 * contents.seconds - _SAME_TIME
        self._skipped = contents.skipped
        self._offset = 0.0  # milliseconds at the beginning that are not to be shown
        self._expected = 0  # frames, by the packets
        self._first: float | None = None  # time of the first key frame
        self._own: NDArray[np.uint8] | None = None
        self._beside: dict[Size, Beside] = {}  # decoders of frames that change their size between key frames
        self._key = 0, 0  # packet and frame where such decoders begin
        self.scaled = 0
        self.sizes = [self._given]

    def shown_sizes(self) -> list[Size]:
        """Return the sizes of the frames so far, in order, turned as the container says."""
        return [size[::-1] if self._rotation in (90, 270) else size for size in self.sizes]

    def grabbed(self, failures: int) -> None:
        """Follow the decoder to the frame that it has just grabbed, after so many failed reads."""
        self._frame += 1 + failures
        self._shown += 1
        time = self._decoder.get(cv2.CAP_PROP_POS_MSEC)
        while self._is_near(time) and self._read_packet():
            pass
        while len(self._stretches) > 1 and self._has_reached(self._stretches[1], time):
            self._stretches.popleft().close()
            self._enter(self._stretches[0])
        self._stretches[0].grab()
        for beside in self._beside.values():
            beside.grab()

    def picture(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the frame that was grabbed last, at its own size.

        Args:
            image: as the decoder of the file gives it, uint8 `(H, W, 3)`.

        Returns:
            uint8, of its own height and width where a decoder of its own shows the same picture.
        """
        stretch = self._stretches[0]
        if stretch.size == self._given:
            return image
        own = self._beside[stretch.size].retrieve() if stretch.size in self._beside else stretch.retrieve()
        if own is None:
            self.scaled += 1
            return image
        if self._rotation in _ROTATIONS:
            own = cv2.rotate(own, _ROTATIONS[self._rotation]).astype(np.uint8, copy=False)
        if _difference(own, image) > _UNLIKE:
            self.scaled += 1
            return image
        return own

    def withheld(self) -> int:
        """Count the frames that the decoder has not shown, at the end of the video; OpenCV does not report them.

        0 for codecs of which a packet may hold no frame, or more than one, and where packets have no times.
        """
        self._stretches[-1].collects = False
        while self._read_packet():
            pass
        is_countable = self._codec is not None and self._codec.is_frame_each and self._follows_time()
        return max(0, self._expected - self._shown) if is_countable else 0

    def close(self) -> None:
        """Release the captures."""
        self._packets.release()
        for stretch in self._stretches:
            stretch.close()
        for beside in self._beside.values():
            beside.close()

    def _follows_time(self) -> bool:
        """Whether frames are known by their times: raw streams have none but 0."""
        return self._has_times and self._clock_runs

    def _is_near(self, time: float) -> bool:
        """Whether a key frame that is shown by `time` may still be unread."""
        if self._follows_time():
            return len(self._recent) < _REORDERING or min(self._recent) <= time
        return self._read <= self._frame + _REORDERING

    def _has_reached(self, stretch: Stretch, time: float) -> bool:
        """Whether the frame that was grabbed belongs to a stretch, or to a later one."""
        if not self._follows_time():
            return self._frame >= stretch.first
        if stretch.follows_time:
            return time > stretch.time - _SAME_TIME
        # The clock was set back: frames before it have the same times.
        is_first = abs(time - stretch.time) < _SAME_TIME and self._decoder.get(cv2.CAP_PROP_FRAME_TYPE) == _INTRA
        return is_first and self._frame >= stretch.first - _REORDERING

    def _read_packet(self) -> bool:
        """Read one packet; False at the end. It opens nothing: decoders call it while they are being opened."""
        if not self._packets.grab():
            return False
        number, self._read = self._read, self._read + 1
        if number == 0 and self._skipped > 0:
            # Packets come without regard to edits, their times from the first one on.
            delay = self._packets.get(cv2.CAP_PROP_DTS_DELAY) / (self._packets.get(cv2.CAP_PROP_FPS) or 25.0)
            self._offset = 1000 * max(0.0, self._skipped - delay)
        time = self._packets.get(cv2.CAP_PROP_POS_MSEC) - self._offset
        self._recent.append(time)
        is_key = bool(self._packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME))
        if is_key or self._follower is not None or self._stretches[-1].collects:
            ok, data = self._packets.retrieve()
            packet = data.tobytes() if ok and data is not None else b""
            if is_key:
                packet = self._begin_stretch(packet, number, time)
            if self._follower is not None:
                self._follow(self._follower.shown(packet), number, time)
            if self._stretches[-1].collects:
                self._stretches[-1].packets.append(packet)
        self._expect(time, is_key)
        self._clock_runs |= number > 0 and time != self._latest_time
        self._latest_time = max(self._latest_time, time)
        return True

    def _expect(self, time: float, is_key: bool) -> None:
        """Count a packet whose frame is to be shown: from the first key frame on, within what the container shows."""
        is_first = self._first is None and is_key
        if is_first:
            self._first = time
        if self._first is not None and -_SAME_TIME < time < self._latest:
            self._expected += is_first or time > self._first  # a packet without a time counts as the beginning

    def _begin_stretch(self, packet: bytes, number: int, time: float) -> bytes:
        """Begin a stretch of frames where a key frame sets another size, or may do so; return what is its own."""
        if self._codec is None:
            self._codec = codec_of(packet)
            self._follower = self._codec.follow() if self._codec is not None and self._codec.follow else None
        if self._codec is not None and self._codec.cleaned is not None:
            packet = self._codec.cleaned(packet)
        setup = self._codec.setup(packet) if self._codec is not None else None
        last = self._stretches[-1]
        if setup is None or self._codec is None or setup == last.setup:
            return packet
        if last.setup is None and (self._codec.size is None or self._codec.size(setup) == self._given):
            last.setup = setup
            self._known[setup] = self._given
            return packet
        last.collects = False
        self._stretches.append(Stretch(setup, number, time, number == 0 or time > self._latest_time))
        return packet

    def _follow(self, size: Size | None, number: int, time: float) -> None:
        """Begin a stretch where the size changes without a key frame: no new decoder can begin there."""
        last = self._stretches[-1]
        setup = None if size is None else size[0].to_bytes(3, "big") + size[1].to_bytes(3, "big")
        if setup is None or setup == last.setup:
            return
        last.collects = False
        stretch = Stretch(setup, number, time, time > self._latest_time)
        stretch.collects, stretch.is_between = False, True
        self._known[setup] = size
        self._stretches.append(stretch)

    def _enter(self, stretch: Stretch) -> None:
        """Let the frames from the one that was grabbed on be those of a stretch."""
        assert self._codec is not None
        if stretch.setup not in self._known and stretch.packets:
            self._known[stretch.setup] = _size_of(self._codec, stretch.setup or b"", stretch.packets[0])
        stretch.size = self._known.get(stretch.setup) or self._given
        if stretch.first == 0:  # no frame has the size that the container says
            self.sizes = [stretch.size]
        elif stretch.size != self.sizes[-1]:
            self.sizes.append(stretch.size)
        fits = stretch.size[0] * stretch.size[1] <= self._largest
        if not stretch.is_between:
            for beside in self._beside.values():
                beside.close()
            self._beside, self._key = {}, (stretch.first, self._frame)
        if stretch.size == self._given:
            stretch.close()
        elif fits and not stretch.is_between:
            stretch.open(self._codec, self._read_packet)
        elif fits and stretch.size not in self._beside and len(self._beside) < _MOST_SIZES:
            packet, frame = self._key
            self._beside[stretch.size] = Beside(
                packets_of(self._reopen()), self._codec, stretch.size, packet, self._frame - frame
            )


def _size_of(codec: Codec, setup: bytes, packet: bytes) -> Size | None:
    """Return the size that a key frame sets, without decoding it; None: it sets none that makes sense."""
    if codec.size is not None:
        size = codec.size(setup)
    else:
        stream = io.BytesIO(codec.head(None) + codec.framed(packet, 0))
        headers = open_packets(codec, stream, "|codec_whitelist;none")
        size = int(headers.get(cv2.CAP_PROP_FRAME_WIDTH)), int(headers.get(cv2.CAP_PROP_FRAME_HEIGHT))
        headers.release()
    return size if size[0] > 0 and size[1] > 0 else None


def _difference(own: NDArray[np.uint8], image: NDArray[np.uint8]) -> float:
    scaled = cv2.resize(own, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    return float(cv2.absdiff(scaled, image).mean())
