"""Connections to live sources: RTSP, MJPEG and HLS over HTTP, cameras of this machine. One is used by one thread."""

from __future__ import annotations

import errno
import os
import struct
import time
from abc import ABC, abstractmethod
from http.client import HTTPException
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.host_gate import host_gate
from asr_runtime.cameras.mjpeg import MAX_PART, MultipartReader
from asr_runtime.cameras.rtsp import explain_rtsp
from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.http.client import Response, fetch, login_of, open_url
from asr_runtime.http.connection import HttpError, connection_failure
from asr_runtime.media.capture import open_ffmpeg
from asr_runtime.media.image import decode_image
from asr_runtime.media.video import MAX_FRAME_PIXELS

__all__ = ["KEY_FRAME_TIMEOUT", "OPEN_TIMEOUT", "READ_TIMEOUT", "Stream", "open_stream"]

OPEN_TIMEOUT = 4.0
"""Seconds until a source that does not answer is given up for this time."""
READ_TIMEOUT = 4.0
"""Seconds without a frame until a connection is given up."""
KEY_FRAME_TIMEOUT = 15.0
"""The same where key frames only are decoded: cameras send one every 1 to 10 seconds."""

# Not measuring the frame rate before the first frame saves a second or more, in which the first frames would grow old.
_RTSP = "rtsp_flags;prefer_tcp|fpsprobesize;0|protocol_whitelist;rtsp,rtsps,rtp,srtp,tcp,udp,tls"
_KEY_FRAMES = "|avdiscard;nonkey"  # the decoder passes over all others
# A playlist must not lead to files, nor the server to another one.
_HTTP = "protocol_whitelist;http,https,httpproxy,tcp,tls,crypto|format_whitelist;hls,mpegts,mov,aac|max_redirects;0"
_AFTER_QUESTION = 0.1  # seconds
_V4L_TIMEOUT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"
_VIDIOC_REQBUFS = 0xC0145608
_CHUNK = 1 << 20
_PICTURES = ("image/jpeg", "image/jpg", "image/pjpeg", "image/png", "image/webp", "image/bmp")
_POLLS = 2.0  # requests a second to a camera that gives one picture for each, unless a rate is asked for
_MOST_POLLS = 10.0
_FEWEST_POLLS = 1.0  # a source without a frame for two seconds counts as stalled


class Stream(ABC):
    """An open live source. `grab` waits for the next frame, `retrieve` decodes it."""

    @abstractmethod
    def grab(self) -> float | None:
        """Wait for the next frame, at most `READ_TIMEOUT` seconds.

        Returns:
            Time of the frame by the source's own clock, in seconds from any origin; None if the source gives none.

        Raises:
            SourceError: the source has gone, or gave no frame in time.
        """

    @abstractmethod
    def retrieve(self) -> NDArray[np.uint8]:
        """Return the grabbed frame, uint8 `(H, W, 3)`, BGR, of at most `MAX_FRAME_PIXELS` pixels.

        Raises:
            DecodeError: it is not a whole picture, or too large.
            SourceError: the source is lost with it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


def open_stream(url: str, fps: float | None = None, *, key_frames: bool = False) -> Stream:
    """Connect to a live source.

    Args:
        url: `rtsp://`, `rtsps://`, `http://`, `https://`, or the path of a video device.
        fps: pictures wanted per second, of a camera that gives one for each request. None: 2.
        key_frames: of RTSP, decode key frames only, which takes a tenth of the time. The others are not seen at all.

    Raises:
        SourceError: not there, silent, refuses, or is no video; the message says which, without the source's name.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("http", "https"):
        try:
            return _open_http(url, fps)
        except HttpError as error:  # the same error as from a separate process, and for every kind of source
            raise SourceError(str(error)) from None
    if scheme:
        return _open_rtsp(url, key_frames)
    return _DeviceStream(url)


def _open_rtsp(url: str, key_frames: bool) -> Stream:
    if refusal := explain_rtsp(url, OPEN_TIMEOUT):
        raise SourceError(refusal)
    options, read_timeout = (_RTSP + _KEY_FRAMES, KEY_FRAME_TIMEOUT) if key_frames else (_RTSP, READ_TIMEOUT)
    failure = "the server answers, but gives no video that can be decoded"
    # A server answers 503 for a moment, until it has freed what it prepared for the request before.
    time.sleep(_AFTER_QUESTION)
    asked = time.monotonic()
    try:
        return _FfmpegStream(url, options, failure, read_timeout)
    except SourceError:
        if time.monotonic() - asked > 1:
            raise
    time.sleep(4 * _AFTER_QUESTION)
    return _FfmpegStream(url, options, failure, read_timeout)


class _FfmpegStream(Stream):
    """What OpenCV's FFmpeg reads from the network."""

    def __init__(self, url: str, options: str, failure: str, read_timeout: float = READ_TIMEOUT) -> None:
        self._read_timeout = read_timeout
        milliseconds = int(1000 * OPEN_TIMEOUT), int(1000 * read_timeout)
        started = time.monotonic()
        self._capture = open_ffmpeg(
            url,
            options,
            (
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds[0]),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds[1]),
                *(cv2.CAP_PROP_N_THREADS, 1),  # every further thread of the decoder holds one frame back
            ),
        )
        if not self._capture.isOpened():
            self._capture.release()
            if time.monotonic() - started > 0.9 * OPEN_TIMEOUT:
                raise SourceError(f"no answer within {OPEN_TIMEOUT:g} s")
            raise SourceError(failure)

    def grab(self) -> float | None:
        started = time.monotonic()
        ok = self._capture.grab()
        # After a time-out OpenCV may hand out what is left in the decoder as if it were new; it never recovers.
        if time.monotonic() - started > 0.9 * self._read_timeout:
            raise SourceError(f"no frame for {self._read_timeout:g} s")
        if not ok:
            raise SourceError("the source ended the stream")
        milliseconds = self._capture.get(cv2.CAP_PROP_POS_MSEC)
        return milliseconds / 1000 if milliseconds > 0 else None

    def retrieve(self) -> NDArray[np.uint8]:
        ok, image = self._capture.retrieve()
        if not ok or image is None:
            raise DecodeError("a frame that cannot be decoded")
        return _bounded(image.astype(np.uint8, copy=False))

    def close(self) -> None:
        self._capture.release()


class _GatedStream(_FfmpegStream):
    """HLS, or a transport stream over HTTP, that leads to no other host."""

    def __init__(self, url: str) -> None:
        self._url = url
        gate = host_gate()
        gate.admit(url)
        try:
            super().__init__(url, f"{_HTTP}|http_proxy;{gate.url}", "a playlist or stream that cannot be read")
        except SourceError:
            gate.dismiss(url)
            raise

    def close(self) -> None:
        super().close()
        host_gate().dismiss(self._url)


class _MjpegStream(Stream):
    """JPEG pictures over HTTP. Of those that wait already only the newest is given: the others are old."""

    def __init__(self, response: Response, boundary: bytes, head: bytes) -> None:
        self._response = response
        self._reader = MultipartReader(boundary)
        self._parts = self._reader.feed(head)
        self._part = b""

    def grab(self) -> float | None:
        give_up = time.monotonic() + READ_TIMEOUT
        while not self._parts:
            try:
                data = self._response.read1(_CHUNK)
            except TimeoutError:
                data = b""
                give_up = 0.0
            except (OSError, HTTPException, ValueError) as error:
                raise SourceError(f"the connection broke ({connection_failure(error)})") from None
            if time.monotonic() > give_up:
                raise SourceError(f"no frame for {READ_TIMEOUT:g} s")
            if not data:
                raise SourceError("the source ended the stream")
            self._parts = self._reader.feed(data)
        self._part, self._parts = self._parts[-1], []
        return None

    def retrieve(self) -> NDArray[np.uint8]:
        return _bounded(decode_image(self._part, "frame"))

    def close(self) -> None:
        self._response.close()


class _PolledStream(Stream):
    """A camera that gives one picture for each request."""

    def __init__(self, url: str, fps: float) -> None:
        self._url = url
        self._login = login_of(urlsplit(url))  # reused, so that the camera need not ask for the password each time
        self._interval = 1 / min(max(fps, _FEWEST_POLLS), _MOST_POLLS)
        self._due = time.monotonic()
        self._picture = b""

    def grab(self) -> float | None:
        time.sleep(max(0.0, self._due - time.monotonic()))
        self._picture = fetch(self._url, READ_TIMEOUT, MAX_PART, redirects=0, login=self._login).data
        self._due = time.monotonic() + self._interval
        return None

    def retrieve(self) -> NDArray[np.uint8]:
        return _bounded(decode_image(self._picture, "frame"))

    def close(self) -> None:
        """Nothing is open between two requests."""


class _DeviceStream(Stream):
    """A camera of this machine (V4L2)."""

    def __init__(self, path: str) -> None:
        # OpenCV reads it once, when it first waits for a frame.
        os.environ.setdefault(_V4L_TIMEOUT, str(round(READ_TIMEOUT)))
        self._capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            self._capture.release()
            raise SourceError(_explain_device(path))

    def grab(self) -> float | None:
        started = time.monotonic()
        try:
            ok = self._capture.grab()
        except cv2.error as error:  # a time-out that is no number of seconds
            raise SourceError(f"{_V4L_TIMEOUT}={os.environ.get(_V4L_TIMEOUT)}: {error.err}") from None
        if not ok:
            waited = time.monotonic() - started
            raise SourceError("the camera has gone" if waited < 0.5 else f"no frame for {waited:.0f} s")
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000

    def retrieve(self) -> NDArray[np.uint8]:
        ok, image = self._capture.retrieve()
        if not ok or image is None:
            raise DecodeError("a frame that cannot be decoded")
        return image.astype(np.uint8, copy=False)

    def close(self) -> None:
        # At once: while the old handle is open, a camera that is plugged in again comes back under another number.
        self._capture.release()


def _bounded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image.shape[0] * image.shape[1] > MAX_FRAME_PIXELS:
        raise DecodeError(f"a frame of more than {MAX_FRAME_PIXELS} pixels")
    return image


def _explain_device(path: str) -> str:
    import fcntl  # not on every system

    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return "no such device: is the camera plugged in? (v4l2-ctl --list-devices)"
        advice = "; is the user in the group `video`?" if error.errno == errno.EACCES else ""
        return f"the device cannot be opened ({error.strerror}){advice}"
    try:
        fcntl.ioctl(handle, _VIDIOC_REQBUFS, bytearray(struct.pack("5I", 0, 1, 1, 0, 0)))  # asks for 0 buffers
    except OSError as error:
        known = {errno.EBUSY: "the camera is busy: another program uses it", errno.ENOTTY: "not a camera"}
        return known.get(error.errno or 0, f"not a camera that gives pictures ({error.strerror})")
    finally:
        os.close(handle)
    return "the camera gives no format that can be read"


def _open_http(url: str, fps: float | None) -> Stream:
    """Request the stream and choose its reader by its content type."""
    response = open_url(url, OPEN_TIMEOUT)
    kind = response.media_type
    if kind.startswith("multipart/"):
        return _MjpegStream(response, (response.parameter("boundary") or "frame").encode(errors="replace"), b"")
    if kind in _PICTURES:
        response.close()
        return _PolledStream(url, fps or _POLLS)
    try:
        head = response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        response.close()
        raise SourceError(f"no picture came ({connection_failure(error)})") from None
    if head.startswith(b"--") and b"\n" in head[:200]:  # some servers name no type
        return _MjpegStream(response, head.split(b"\n", 1)[0].strip(), head)
    response.close()
    if head.lstrip()[:7] == b"#EXTM3U" or head[:1] == b"\x47":
        return _GatedStream(url)
    content = "a web page" if head.lstrip()[:1] == b"<" or kind == "text/html" else kind
    if kind.startswith("video/"):
        content += " (fetch a file first: curl -o FILE URL)"
    raise SourceError(
        f"{content}, expected JPEG pictures, an MJPEG stream, an HLS playlist or a transport stream: check the path"
    )
