"""Figures of benchmarks: their text, their files, and the comparison of two sets of samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.batching import BatchCosts
from asr_bench.browser_start import PageStarts
from asr_bench.cameras import CameraLoad
from asr_bench.figures import Figure, compare, read_figures, write_figures
from asr_bench.folder import FolderSpeed
from asr_bench.frame_sizes import FrameSizes
from asr_runtime.errors import ConfigurationError


def test_a_change_inside_the_spread_is_noise_and_one_outside_is_not() -> None:
    same = compare((10.0, 11.0, 12.0, 10.5, 11.5), (10.2, 11.2, 11.9, 10.4, 11.6))
    assert same.is_noise
    slower = compare((10.0, 10.1, 10.2, 9.9, 10.0), (12.0, 12.1, 11.9, 12.2, 12.0))
    assert slower.ratio == pytest.approx(1.2)
    assert 1.1 < slower.low < 1.2 < slower.high < 1.3
    assert not slower.is_noise


def test_figures_come_back_from_their_file(tmp_path: Path) -> None:
    costs = BatchCosts("tiny", {1: [0.02, 0.03], 4: [0.01, 0.01]})
    write_figures([costs, PageStarts("demo", (3.0,), (4.0,), (1.0,), (2.0,))], tmp_path / "f.json")
    found = read_figures(tmp_path / "f.json")
    assert [str(figure) for figure in found[:2]] == ["25 ms (20 to 30)", "10 ms (10 to 10)"]
    assert [str(figure) for figure in found[2:]] == ["3 s (3 to 3)", "4 s (4 to 4)", "1 s (1 to 1)", "2 s (2 to 2)"]
    assert [figure.name for figure in found[:1]] == ["tiny, 1 in one inference: a picture"]
    (tmp_path / "f.json").write_text('[{"name": "a"}]')
    with pytest.raises(ConfigurationError, match=r"f\.json: expected the figures"):
        read_figures(tmp_path / "f.json")


def test_shares_and_differences_are_taken_round_by_round() -> None:
    speed = FolderSpeed(
        *("tiny", 20, 384, 384, 2),
        (0.01, 0.02),
        (0.03, 0.03),
        (40.0, 20.0),
        (1, 1),
        (0.05, 0.1),
        (20.0, 10.0),
        (5.0, 5.0),
    )
    of_bound, of_work = (figure.samples for figure in speed.figures() if figure.unit == "%")
    assert of_bound == pytest.approx((80.0, 50.0))  # 40 and 20 of 50 and 40 pictures/s
    assert of_work == pytest.approx((80.0, 50.0))  # 0.04 and 0.05 of 0.05 and 0.1 s
    assert [figure.samples for figure in speed.figures() if figure.unit == "x"] == [(2.0, 2.0)]
    sizes = FrameSizes("a.onnx", 1, {"384x384": (0.01, 0.02), "1080x1920": (0.015, 0.021)}, {})
    assert sizes.figures()[1].samples == pytest.approx((5.0, 1.0))


def test_cameras_without_a_scored_frame_have_no_age() -> None:
    load = CameraLoad((0.0,), (), 0, {"stalled": 1}, 0.1)
    assert all(isinstance(figure, Figure) for figure in load.figures())
    assert not any("age" in figure.name for figure in load.figures())
