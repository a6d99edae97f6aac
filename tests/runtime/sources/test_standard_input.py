"""Standard input: a picture, a video or a list of files. Anything else is one error, and nothing is read."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from runtime_samples import command_line, encoded, environment, picture

from asr_runtime import Detector, screen
from asr_runtime.records import FrameRecord, SummaryRecord
from asr_runtime.sources.expand import Expansion, Source, Unreadable


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: two pictures, one of them below, and a text."""
    (tmp_path / "below").mkdir()
    for name in ("a.png", "below/b c.png"):
        (tmp_path / name).write_bytes(encoded(picture(), ".png"))
    (tmp_path / "notes.txt").write_text("hello\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(data: bytes, folders: bool = False) -> list[Source | Unreadable]:
    return list(Expansion(["-"], io.BytesIO(data), folders_in_list=folders))


def tar(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(folder / "a.png", "a.png")
        archive.add(folder / "below", "below")
    return buffer.getvalue()


def test_binary_data_is_one_error_and_nothing_is_scanned(here: Path) -> None:
    archive = tar(here)
    cases = {
        "GIF and a dot": b"GIF89a\n.\n",
        "a dot": b".\n",
        "the root": b"/\n",
        "everything": b"*\n",
        "tar": archive,
        "tar.gz": gzip.compress(archive),
        "zip": b"PK\x03\x04\x14\0\0\0\x08\0" + os.urandom(200) + b"\n.\n/\n",
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n.\n/\n" + bytes(300),
        "noise": b"\x01\x02" + os.urandom(9000) + b"\n.\n",
        "html": b"<!DOCTYPE html>\n<html>\n.\n/\n</html>\n",
        "json": b'{"a": 1}\n{"a": 2}\n',
        "words": b"hello\nworld\n",
        "words without an end": b"hello\nworld",
        "UTF-16": "a.png\n".encode("utf-16"),
        "NULs": b"a.png\0\0\0\0.\0",
        "nothing but NULs": bytes(100_000),
        "long": b"x" * 100_000,
        "empty": b"",
        "blank": b"\n\n\n",
    }
    for name, data in cases.items():
        items = given(data)
        assert len(items) == 1, (name, items)
        item = items[0]
        assert isinstance(item, Unreadable) or item.data is not None, (name, item)
        if isinstance(item, Unreadable):
            assert ("is empty" in str(item.error)) is (name in ("empty", "blank")), name


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\0"])
def test_a_list_of_files_is_read_line_by_line_or_split_at_nul(here: Path, ending: bytes) -> None:
    listed = ending.join([b"a.png", os.fsencode(here / "below/b c.png"), b"./a.png", b"missing.png", b"notes.txt"])
    for data in (listed, listed + ending):
        first, second, missing = given(data)
        assert (first.name, second.name) == ("a.png", str(here / "below/b c.png"))
        assert isinstance(missing, Unreadable)
        assert "missing.png: no such file" in str(missing.error)
    assert [item.name for item in given(b"\xef\xbb\xbf" + b"a.png\n")] == ["a.png"]


def test_a_folder_in_a_list_needs_the_option(here: Path) -> None:
    for data in (b"a.png\nbelow\n", b"a.png\0below\0", b"below\na.png\n"):
        errors = [item for item in given(data) if isinstance(item, Unreadable)]
        assert ["--folders-in-list" in str(error.error) for error in errors] == [True]
        assert sorted(item.name for item in given(data, folders=True)) == ["a.png", "below/b c.png"]


def test_a_pattern_and_a_camera_in_a_list_lead_nowhere(here: Path) -> None:
    items = given(b"a.png\n*.png\nrtsp://u:secret@h/1\n0\n")
    assert [type(item) for item in items] == [Source, Unreadable, Unreadable, Unreadable]
    assert not any("secret" in str(item) for item in items)


def test_names_in_a_list_may_hold_any_bytes(here: Path) -> None:
    odd = os.fsdecode(b"caf\xe9\n\x1b.png")
    shutil.copy("a.png", odd)
    assert [item.name for item in given(os.fsencode(odd) + b"\0a.png\0")] == [odd, "a.png"]


def test_a_video_on_standard_input_is_scored_and_leaves_no_file(
    detector: Detector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for isolate in (False, True):
        *records, summary = list(screen(["-"], detector, stdin=io.BytesIO(clip.read_bytes()), isolate=isolate))
        assert isinstance(summary, SummaryRecord)
        assert (summary.scored, summary.failed) == (100, 0)
        assert {record.source for record in records if isinstance(record, FrameRecord)} == {"-"}
        assert list(tmp_path.iterdir()) == []


def test_find_print0_and_a_tar_archive_through_a_pipe(here: Path, model_path: Path) -> None:
    screening = command_line("screen", "-", "--model", model_path, "--format", "jsonl")
    code = "import os,sys; sys.stdout.buffer.write(b''.join(os.fsencode(p)+b'\\0' for p in sys.argv[1:]))"
    for producer, lines in (
        ([sys.executable, "-c", code, "a.png", "below/b c.png"], 3),
        (["tar", "c", "a.png", "below"], 2),
    ):
        with subprocess.Popen(producer, stdout=subprocess.PIPE) as source:
            done = subprocess.run(
                screening, stdin=source.stdout, capture_output=True, env=environment(), check=False, timeout=60
            )
        assert len(done.stdout.splitlines()) == lines, done.stdout
