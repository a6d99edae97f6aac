"""Videos of which OpenCV gives no frame, but a picture from memory in place of each, without an error.

OpenCV 4.13 to 5.0 converts no interlaced frames (of DVDs, DV tapes, 1080i broadcasts). What it gives then is black, or
the last frame of the video before. Such a picture is the same for every frame, while the packets of the file change.
"""

from __future__ import annotations

import cv2
import numpy as np

from asr_runtime.media.stretches import packets_of

__all__ = ["FRAMES", "packets_change"]

FRAMES = 24
"""Frames at the beginning that are compared: more than a codec reorders."""

_PACKETS = 9
_CHANGES = 2  # packets that bring something new, at least: one may be shown later, or never
_PIXELS_A_BYTE = 1024  # a packet that repeats the frame before takes 2 bits at most for each block of 16 x 16 pixels
_HEADERS = 64  # bytes
_PIECE = 16  # bytes
_ALIKE = 0.98  # of the bytes of two packets of one picture that have one length: a clock may stand in them
_NO_REPETITION = b"ffv1"  # codes a frame anew even where it repeats the one before, and marks only some as key frames


def packets_change(capture: cv2.VideoCapture) -> bool:
    """Whether the first packets of a video bring new pictures. It reads and releases the capture."""
    pixels = capture.get(cv2.CAP_PROP_FRAME_WIDTH) * capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    codec = (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").lower()
    packets_of(capture)
    changes, before = 0, b""
    for number in range(_PACKETS):
        if not capture.grab():
            break
        ok, data = capture.retrieve()
        packet = data.tobytes() if ok and data is not None else b""
        if number > 0 and capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
            changes += not _are_alike(packet, before)
        elif number > 0 and codec != _NO_REPETITION:
            changes += len(packet) > _HEADERS + pixels / _PIXELS_A_BYTE
        before = packet
    capture.release()
    return changes >= _CHANGES


def _are_alike(packet: bytes, before: bytes) -> bool:
    """Whether two packets that need no other one are of the same picture: one may begin with some more bytes."""
    if len(packet) == len(before):
        same = np.frombuffer(packet, np.uint8) == np.frombuffer(before, np.uint8)
        return not packet or float(same.mean()) >= _ALIKE
    places = (len(before) * quarter // 4 for quarter in (1, 2, 3))
    return all(before[at : at + _PIECE] in packet for at in places)
