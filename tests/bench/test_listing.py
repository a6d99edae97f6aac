"""The benchmark of listing makes a folder of as many pictures as asked for, and lists every one."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.listing import made_folder, measured
from asr_train.data.layouts import find_data


@pytest.mark.heavy
def test_every_picture_that_is_made_is_listed_and_the_index_is_used(tmp_path: Path) -> None:
    made_folder(tmp_path / "data", 1000)
    data = find_data(tmp_path / "data")
    assert (len(data.train), len(data.val)) == (900, 100)
    assert {s.label for s in data.train} == {0, 1}
    assert data.train[0].read().ndim == 3
    first = measured(tmp_path / "data", tmp_path / "cache")
    assert first["pictures"] == 1000
    assert len(list((tmp_path / "cache").rglob("index-1/*.parquet"))) == 1
