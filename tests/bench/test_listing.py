"""The benchmark of listing makes a folder of as many pictures as asked for, and lists every one."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.listing import made_folder, made_shards, measured, streamed
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


@pytest.mark.heavy
def test_rows_of_many_pictures_are_streamed_from_few_tar_files(tmp_path: Path) -> None:
    made_shards(tmp_path / "shards", 3000, 3)
    data = find_data(tmp_path / "shards")
    assert (data.layout, len(data.train)) == ("shards", 3000)
    assert data.train[2999].read().shape == (64, 64, 3)
    result = streamed(tmp_path / "shards")
    assert result["pictures"] == 3000
    assert 0 <= result["megabytes"] < result["peak"]
