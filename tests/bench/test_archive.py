"""The benchmark of archives: its pictures differ, and its rate is that of the middle of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.archive import _rate, make_pictures
from asr_runtime import read_image
from asr_runtime.errors import InputError


def test_pictures_are_all_different(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 40)
    files = sorted((tmp_path / "pictures").iterdir())
    assert len({path.read_bytes() for path in files}) == len(files) == 40
    assert read_image(files[0]).shape == (96, 96, 3)


def test_pictures_are_crops_of_a_folder(tmp_path: Path) -> None:
    make_pictures(tmp_path / "large", 4, side=128)
    make_pictures(tmp_path / "pictures", 6, tmp_path / "large", 100)
    files = sorted((tmp_path / "pictures").iterdir())
    assert [read_image(path).shape for path in files] == [(100, 100, 3)] * 6
    assert len({path.read_bytes() for path in files}) == 6
    with pytest.raises(InputError, match="expected pictures of at least 200 x 200 pixels"):
        make_pictures(tmp_path / "more", 6, tmp_path / "large", 200)


def test_start_and_end_of_a_run_do_not_count() -> None:
    steady = [10.0 + second for second in range(100)]
    slow_start_and_end = [0.0, *[10.0 + second for second in range(1, 99)], 500.0]
    assert _rate(steady, 20) == pytest.approx(20)
    assert _rate(slow_start_and_end, 20) == pytest.approx(20)
