"""What is drawn over a frame can be seen at every size, and breaks at none."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from live_samples import frame
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord
from asr_runtime.reports.overlay import Overlay


def drawn(record: FrameRecord, width: int, height: int, level: int = 128) -> NDArray[np.uint8]:
    canvas = np.full((height, width, 3), level, np.uint8)
    overlay = Overlay()
    overlay.remember(record)
    overlay.draw(canvas, record)
    return canvas


@pytest.mark.parametrize("size", [(160, 120), (160, 90), (320, 240), (90, 160), (1920, 1080), (3840, 2160), (3840, 90)])
@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_the_border_has_the_colour_of_the_verdict_and_the_middle_is_untouched(
    size: tuple[int, int], verdict: Verdict
) -> None:
    canvas = drawn(frame("door", verdict, age=0.1), *size)
    blue, green, red = (int(value) for value in canvas[size[1] // 2, 0])
    seen: Verdict = "unsure" if min(green, red) > 150 else "ai" if red > green else "real"
    assert seen == verdict
    for edge in (canvas[0], canvas[-1], canvas[:, 0], canvas[:, -1]):
        assert (edge == (blue, green, red)).all()
    assert (canvas[size[1] // 2, size[0] // 2] == 128).all()


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("width", [160, 640, 3840])
def test_the_label_stands_out_from_black_and_from_white(width: int, level: int) -> None:
    canvas = drawn(frame("door", "ai", age=0.1), width, width * 3 // 4, level)
    letter = max(8, round(0.024 * 0.75 * width))
    strip = canvas[letter // 2 : 2 * letter, letter // 2 : -letter // 2].astype(int).sum(axis=2)
    assert strip.max() > 700, "white letters"
    assert np.median(strip) < 350, "on a dark ground"


def test_every_part_of_the_record_is_seen() -> None:
    """Each field that changes alone changes the picture."""
    first = drawn(frame("door", "ai", 0, 72.4), 640, 480)
    others = [
        frame("yard", "ai", 0, 72.4),
        frame("door", "ai", 0, 73.4),
        frame("door", "ai", 0, 72.4, age=0.1),
        frame("door", "ai", 0, 72.4, probability=0.8),
    ]
    for other in others:
        assert (drawn(other, 640, 480) != first).any()


def test_the_graph_shows_the_latest_frames() -> None:
    overlay = Overlay()
    for number in range(100):
        overlay.remember(frame("clip.mp4", "ai" if number >= 70 else "real", probability=1.0 if number >= 70 else 0.5))
    canvas = np.zeros((480, 640, 3), np.uint8)
    overlay.draw(canvas, frame("clip.mp4", "unsure"))
    graph = canvas[-20:-8, 460:-8].astype(int)
    ai = (graph[..., 2] > 150) & (graph[..., 1] < 100)
    real = (graph[..., 1] > 100) & (graph[..., 2] < 100)
    assert real[:, : graph.shape[1] // 2].any(axis=0).sum() > 30
    assert ai[:, graph.shape[1] // 2 :].any(axis=0).sum() > 30
    assert not ai[:, : graph.shape[1] // 3].any()


@pytest.mark.parametrize("source", ["", "x" * 5000, "日本\n\x1b[2J.mp4", "rtsp://***@10.0.0.7/cam?***"])
@pytest.mark.parametrize("size", [(160, 90), (640, 480)])
def test_no_name_of_a_source_breaks_the_drawing(source: str, size: tuple[int, int]) -> None:
    drawn(frame(source, "ai", 0, 1e9), *size)
    drawn(frame(source, "unsure", 0, -3.0), *size)
