"""The index of a data folder: only new and changed files are opened, and what is damaged costs only itself."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from asr_runtime.caches import cache_folder
from asr_train.data import folder_index
from asr_train.data.draws import BalancedSampler
from asr_train.data.folder_index import FolderSamples
from asr_train.data.layouts import find_data, picture_counts

_LONG_AGO = 1_700_000_000


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that listing opens, with an index of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names: list[str] = []
    content = folder_index.content_of_ends

    def noted(path: Path) -> bytes | None:
        names.append(path.name)
        return content(path)

    monkeypatch.setattr(folder_index, "content_of_ends", noted)
    return names


def _settle(folder: Path) -> None:
    for path in folder.rglob("*.*"):
        if path.is_file():
            os.utime(path, (_LONG_AGO, _LONG_AGO))


def test_an_unchanged_folder_is_listed_without_opening_a_file(generators: Path, opened: list[str]) -> None:
    _settle(generators)
    first = find_data(generators)
    assert len(opened) == len(first.train) + len(first.val)
    opened.clear()
    again = find_data(generators)
    assert opened == []
    assert (again.fingerprint, list(again.train), list(again.val)) == (
        first.fingerprint,
        list(first.train),
        list(first.val),
    )


def test_a_flat_test_folder_is_in_the_index_too(folders: Path, opened: list[str]) -> None:
    _settle(folders)
    first = find_data(folders)
    assert len(first.test) == 6
    opened.clear()
    again = find_data(folders)
    assert opened == []
    assert (again.fingerprint, list(again.test)) == (first.fingerprint, list(first.test))


def test_new_changed_and_removed_files_are_noticed(generators: Path, opened: list[str]) -> None:
    _settle(generators)
    before = find_data(generators)
    changed, gone = before.train[0].path, before.train[1].path
    size = changed.stat().st_size
    changed.write_bytes(changed.read_bytes()[:-1] + b"\0")
    assert changed.stat().st_size == size
    gone.unlink()
    (changed.parent / "new.jpg").write_bytes(before.train[2].path.read_bytes())
    opened.clear()
    after = find_data(generators)
    assert sorted(opened) == sorted([changed.name, "new.jpg"])
    assert {s.path for s in after.train} == ({s.path for s in before.train} - {gone}) | {changed.parent / "new.jpg"}
    assert after.fingerprint != before.fingerprint


def test_a_file_that_changes_right_after_it_was_listed_is_opened_again(
    generators: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two changes within one tick of the file system's clock have the same time."""
    monkeypatch.setattr(folder_index, "_SETTLED", 3600 * 10**9)
    before = find_data(generators).fingerprint
    path = find_data(generators).train[0].path
    stamp = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    os.utime(path, ns=(stamp, stamp))
    assert find_data(generators).fingerprint != before


@pytest.mark.parametrize("damage", ["a row", "the file", "other columns"])
def test_a_damaged_index_is_one_line_and_the_rest_goes_on(
    generators: Path, opened: list[str], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    _settle(generators)
    before = find_data(generators)
    (file,) = cache_folder("index-1").glob("*.parquet")
    rows = pq.read_table(file)
    if damage == "a row":
        sizes = rows["size"].to_pylist()
        sizes[3] = None
        pq.write_table(rows.set_column(1, rows.schema.field("size"), [sizes]), file)
    elif damage == "other columns":
        pq.write_table(rows.select(["path", "size"]), file)
    else:
        content = bytearray(file.read_bytes())
        content[4:60] = bytes(56)
        file.write_bytes(content)
    opened.clear()
    after = find_data(generators)
    assert after.fingerprint == before.fingerprint
    assert len(opened) == (1 if damage == "a row" else len(before.train) + len(before.val))
    (line,) = [record.message for record in caplog.records]
    assert ("1 damaged rows; their files are looked at again" if damage == "a row" else "damaged (") in line
    caplog.clear()
    find_data(generators)
    assert caplog.records == []  # it was written anew


def test_pictures_are_those_of_the_folder_whatever_their_names(generators: Path, opened: list[str]) -> None:
    odd = generators / "photos" / "train" / "nature" / os.fsdecode(b"caf\xe9.jpg")
    odd.write_bytes(next(iter(find_data(generators).train)).data())
    below = odd.parent / "a" / "z.jpg"
    below.parent.mkdir()
    below.write_bytes(odd.read_bytes())
    samples = find_data(generators).train
    assert isinstance(samples, FolderSamples)
    own = [s.path for s in samples if s.source == "photos"]
    assert own == sorted(own)
    assert {odd, below} <= set(own)
    assert picture_counts(samples) == Counter((s.label, s.source) for s in samples)
    copy = pickle.loads(pickle.dumps(samples))
    assert list(copy) == list(samples) == [*samples[:5], *samples[5:]]
    assert samples[-1] == list(samples)[-1]
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_content_is_size_and_hash_of_the_ends(generators: Path, opened: list[str]) -> None:
    data = find_data(generators)
    for sample in (data.train[0], data.val[0]):
        whole = sample.path.read_bytes()
        digest = hashlib.sha256(whole[:4096] + whole[max(0, len(whole) - 4096) :]).hexdigest()[:32]
        assert sample.key(generators) == (str(sample.path.relative_to(generators)), f"{len(whole)} {digest}")


def test_draws_are_those_of_the_pictures_one_by_one(generators: Path, opened: list[str]) -> None:
    samples = find_data(generators).train
    columns, objects = (list(BalancedSampler(given, "sources", 50, 0)) for given in (samples, tuple(samples)))
    assert columns == objects


def test_a_cache_that_cannot_be_written_is_no_error(
    generators: Path, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(find_data(generators).train) == 28
