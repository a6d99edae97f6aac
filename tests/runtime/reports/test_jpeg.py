"""Pictures of any shape are written as JPEG; what cannot be written is an OutputError."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from runtime_samples import shade

from asr_runtime.errors import OutputError
from asr_runtime.reports.jpeg import jpeg


@pytest.mark.parametrize("shape", [(1, 1), (1, 65500), (1, 65501), (70_000, 4), (2, 1 << 20), (300, 200)])
def test_a_picture_of_any_shape_is_written_in_a_size_that_a_jpeg_can_have(shape: tuple[int, int]) -> None:
    data = jpeg(np.full((*shape, 3), 90, np.uint8), 90)
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert max(shown.shape[:2]) == min(65500, max(shape))
    assert abs(float(shown.mean()) - 90) < 2


def test_a_picture_is_shrunk_to_the_side_that_is_asked_for() -> None:
    data = jpeg(shade(120, 300, 200), 90, largest=64)
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert shown.shape == (64, 43, 3)


def test_what_opencv_refuses_is_an_error_of_ours() -> None:
    with pytest.raises(OutputError, match=r"a picture of 8 x 4 pixels cannot be written as JPEG"):
        jpeg(np.zeros((4, 8, 5), np.uint8), 90)  # five channels
