"""A file is there whole, old or new, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asr_runtime.errors import OutputError
from asr_runtime.whole_file import whole_file, write_whole

OLD, NEW = b"old" * 100_000, b"new" * 100_000


def test_a_block_that_raises_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "below" / "facts.json"
    write_whole(path, OLD)
    with contextlib.suppress(ZeroDivisionError), whole_file(path) as part:
        part.write_bytes(NEW)
        assert part.suffix == ".json"
        raise ZeroDivisionError
    assert [p.read_bytes() for p in path.parent.iterdir()] == [OLD]
    with whole_file(path, sync=True) as part:
        part.write_bytes(NEW)
        assert path.read_bytes() == OLD
    assert [p.read_bytes() for p in path.parent.iterdir()] == [NEW]


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, OLD)
    code = f"""
import os, pathlib, signal
from asr_runtime.whole_file import whole_file
with whole_file(pathlib.Path({str(path)!r})) as part:
    part.write_bytes(b"ne")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert path.read_bytes() == OLD


def test_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    contents = [bytes([number]) * 300_000 for number in range(8)]
    threads = [threading.Thread(target=write_whole, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = tmp_path / "file" / "map.png"
    with pytest.raises(OutputError, match=f"{path}: evidence map cannot be written .*; expected a folder with space"):
        write_whole(path, NEW, what="evidence map")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder: cannot be written"):
        write_whole(tmp_path / "folder", "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
