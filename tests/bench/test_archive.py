"""The benchmark of archives: its pictures differ, and its rate is that of the middle of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.archive import _rate, make_pictures
from asr_runtime import read_image


def test_pictures_are_all_different(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 40)
    files = sorted((tmp_path / "pictures").iterdir())
    assert len({path.read_bytes() for path in files}) == len(files) == 40
    assert read_image(files[0]).shape == (96, 96, 3)


def test_start_and_end_of_a_run_do_not_count() -> None:
    steady = [10.0 + second for second in range(100)]
    slow_start_and_end = [0.0, *[10.0 + second for second in range(1, 99)], 500.0]
    assert _rate(steady, 20) == pytest.approx(20)
    assert _rate(slow_start_and_end, 20) == pytest.approx(20)
