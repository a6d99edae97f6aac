"""Watched folders: each file once, when it is complete; what was done is known after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from live_samples import until

from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.sources.watch import SETTLE, Journal, Watch


class _Watching:
    """A watch in a thread; `paths` are what it gave."""

    def __init__(self, folder: Path, journal: Journal | None = None) -> None:
        self.paths: list[str] = []
        self._leave = threading.Event()
        watch = Watch([str(folder)], journal or Journal())
        self._thread = threading.Thread(target=lambda: self.paths.extend(watch.files(self._leave)), daemon=True)

    def __enter__(self) -> _Watching:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._leave.set()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def names(self) -> list[str]:
        return [Path(path).name for path in self.paths]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "watched"
    made.mkdir()
    return made


def test_files_that_are_there_and_files_that_come_are_given_once(folder: Path) -> None:
    (folder / "b.jpg").write_bytes(b"b")
    (folder / "a.jpg").write_bytes(b"a")
    with _Watching(folder) as watching:
        until(lambda: len(watching.paths) == 2)
        (folder / "below" / "deep").mkdir(parents=True)
        (folder / "below" / "deep" / "c.jpg").write_bytes(b"c")
        until(lambda: len(watching.paths) == 3)
        os.utime(folder / "below")
        time.sleep(2 * SETTLE)
    assert watching.names() == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_file_that_changes_is_given_again(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(b"a")
    with _Watching(folder) as watching:
        until(lambda: len(watching.paths) == 1)
        (folder / "a.jpg").write_bytes(b"another")
        until(lambda: len(watching.paths) == 2)


def test_a_folder_that_is_moved_in_is_looked_through(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "album" / "june").mkdir(parents=True)
    (tmp_path / "album" / "june" / "a.jpg").write_bytes(b"a")
    with _Watching(folder) as watching:
        (tmp_path / "album").rename(folder / "album")
        until(lambda: watching.names() == ["a.jpg"])


def test_a_file_that_is_being_written_waits_however_slow_its_writer_is(folder: Path) -> None:
    with _Watching(folder) as watching:
        code = f"file = open({str(folder / 'slow.jpg')!r}, 'wb', 0); file.write(b'half'); input(); file.write(b'whole')"
        writer = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        (folder / "quick.jpg").write_bytes(b"q")
        until(lambda: watching.names() == ["quick.jpg"] and (folder / "slow.jpg").exists())
        time.sleep(3 * SETTLE)
        assert watching.names() == ["quick.jpg"]
        writer.communicate(b"\n", timeout=10)
        until(lambda: watching.names() == ["quick.jpg", "slow.jpg"])


def test_what_is_deleted_hidden_or_no_file_is_not_given(folder: Path) -> None:
    with _Watching(folder) as watching:
        (folder / ".part-of-a-copy.jpg").write_bytes(b"p")
        (folder / ".git").mkdir()
        (folder / ".git" / "a.jpg").write_bytes(b"g")
        (folder / "gone.jpg").write_bytes(b"g")
        (folder / "gone.jpg").unlink()
        os.mkfifo(folder / "pipe.jpg")
        (folder / "last.jpg").write_bytes(b"l")
        until(lambda: "last.jpg" in watching.names())
        (folder / ".part-of-a-copy.jpg").rename(folder / "copied.jpg")
        until(lambda: "copied.jpg" in watching.names())
    assert watching.names() == ["last.jpg", "copied.jpg"]


def test_a_restart_knows_what_was_done(folder: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", os.fsdecode(b"\xff.jpg")):
        (folder / name).write_bytes(b"1")
    journal = Journal(tmp_path / "state")
    for name in ("a.jpg", os.fsdecode(b"\xff.jpg"), "gone.jpg"):
        journal.add(str(folder / name))
        journal.add(str(folder / name))
    journal.close()
    assert len((tmp_path / "state").read_bytes().splitlines()) == 2
    with (tmp_path / "state").open("ab") as file:
        file.write(b'{"path": "cut sho')
    with closing(Journal(tmp_path / "state")) as journal, _Watching(folder, journal) as watching:
        until(lambda: watching.names() == ["b.jpg"])
        (folder / "a.jpg").write_bytes(b"22")
        until(lambda: watching.names() == ["b.jpg", "a.jpg"])
    assert (tmp_path / "state").read_bytes().endswith(b"}\n")


def test_a_state_file_that_is_none_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("my notes\n")
    with pytest.raises(ConfigurationError, match="not a state file"):
        Journal(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "my notes\n"
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path)


def test_only_folders_are_watched(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        Watch([str(tmp_path / "none")], Journal())
