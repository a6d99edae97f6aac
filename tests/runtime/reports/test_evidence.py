"""Evidence maps: the tint is where the windows say ai, the picture under it can be recognised, files are whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from live_samples import frame
from numpy.typing import NDArray
from runtime_samples import WHOLE_CARD, bright_corner, build_model, picture

from asr_runtime import Detector
from asr_runtime.errors import InferenceError, OutputError
from asr_runtime.records import ImageRecord
from asr_runtime.reports.evidence import Evidence, draw_evidence
from asr_runtime.reports.flagged import FlaggedPictures
from asr_runtime.windows import Window


def redness(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How far each pixel is from grey, towards red."""
    return image[..., 2].astype(float) - image[..., 0]


@pytest.mark.parametrize("shape", [(200, 260), (700, 500)])
def test_the_tint_is_where_the_windows_say_ai(shape: tuple[int, int]) -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    image = bright_corner(*shape)
    drawn = draw_evidence(image, detector.map(image), "ai", 0.9)
    height = round(drawn.shape[1] * shape[0] / shape[1])
    quarter = redness(drawn[:height])
    rows, columns = height // 4, drawn.shape[1] // 4
    assert quarter[-rows:, -columns:].mean() > 80
    assert quarter[:rows, :columns].mean() == pytest.approx(0, abs=2)


def test_parts_without_anything_to_judge_are_dark_and_not_tinted() -> None:
    """A white page is no evidence, however sure the model is of it."""
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    image = bright_corner(600, 600)
    image[:, :300] = 255
    windows = detector.map(image)
    assert {window.x for window in windows} == {x for x in {w.x for w in windows} if x + 64 > 300}
    drawn = draw_evidence(image, windows, "ai", 0.9)[:600]
    assert np.abs(redness(drawn[:, :220])).max() <= 1
    assert drawn[:, :220].mean() == pytest.approx(255 * 0.35, abs=2)
    blank = np.full((100, 100, 3), 255, np.uint8)
    assert detector.map(blank) == ()
    assert draw_evidence(blank, (), "unsure", 0.9).shape[1] == 480


def test_parts_that_no_window_covers_are_dark() -> None:
    image = np.full((600, 800, 3), 128, np.uint8)
    drawn = draw_evidence(image, [Window(0, 0, 300, 0.2), Window(500, 300, 300, 0.95)], "ai", 0.9)
    assert drawn[:300, :300].mean() == pytest.approx(128, abs=1)
    assert drawn[:280, 520:].mean() == pytest.approx(128 * 0.35, abs=1)
    assert redness(drawn[320:580, 520:780]).mean() > 80


def test_the_picture_can_be_recognised_under_the_tint() -> None:
    image = picture(5, 480, 480)
    drawn = draw_evidence(image, [Window(0, 0, 480, 0.99)], "ai", 0.99)[:480]
    before, after = (cv2.cvtColor(each, cv2.COLOR_BGR2GRAY).ravel() for each in (image, drawn))
    assert np.corrcoef(before, after)[0, 1] > 0.95


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (37, 900), (16, 16)])
def test_pictures_of_any_shape_get_a_map_that_can_be_read(shape: tuple[int, int]) -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    image = np.full((*shape, 3), 250, np.uint8)
    drawn = draw_evidence(image, detector.map(image), "ai", 0.98)
    assert drawn.shape[1] >= 480
    assert max(drawn.shape[:2]) <= 1700


def test_flagged_pictures_get_a_map_and_others_none(tmp_path: Path) -> None:
    asked: list[tuple[tuple[int, ...], int]] = []

    def score_map(image: NDArray[np.uint8], most: int) -> list[Window]:
        asked.append((image.shape, most))
        return [Window(0, 0, 64, 0.9)]

    evidence = Evidence(FlaggedPictures(tmp_path / "maps", "evidence map"), score_map, warn=print)
    for name, verdict in (("a/x.png", "ai"), ("b.png", "real"), ("c.png", "unsure"), ("d.png", "ai")):
        evidence.observe(ImageRecord(name, 0.875, verdict), picture())
    for second in range(3):
        evidence.observe(frame("door", "ai", second, 1795409522.0 + second, age=0.1), picture())
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names[:2] == ["d.png_p0.875_map.jpg", "door_20261123T045202.000Z_p0.750_map.jpg"]
    assert len(names) == 3
    assert names[2].startswith("x.png-")
    assert all(cv2.imread(str(path)) is not None for path in (tmp_path / "maps").iterdir())
    assert [most for _, most in asked] == [49, 49, 16], "a camera waits while its map is made"


def test_a_map_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    def fails(image: NDArray[np.uint8], most: int) -> list[Window]:
        raise InferenceError("the model gave NaN or infinity")

    warnings: list[str] = []
    Evidence(FlaggedPictures(tmp_path, "evidence map"), fails, warn=warnings.append).observe(
        ImageRecord("a.png", 0.9, "ai"), picture()
    )
    assert warnings == ["a.png: no evidence map: the model gave NaN or infinity"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="evidence map cannot be written"):
        FlaggedPictures(tmp_path / "file", "evidence map")
