"""Paths that are no plain files: refused at once; folders of any size and shape give each file once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_process import screen
from runtime_samples import build_model, command_line, encoded, environment, picture

import asr_runtime
from asr_runtime.errors import InputError
from asr_runtime.media.image import read_image
from asr_runtime.media.video import VideoFile
from asr_runtime.sources.expand import Expansion, Source

Measured = Callable[[str], None]
MANY = 100_000


@pytest.fixture
def odd_paths(tmp_path: Path) -> list[Path]:
    """A fifo, devices and links that lead nowhere, named as images and as videos."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for suffix in (".jpg", ".mp4"):
        os.mkfifo(folder / f"fifo{suffix}")
        for device in ("zero", "random", "null", "tty"):
            (folder / f"{device}{suffix}").symlink_to(f"/dev/{device}")
        (folder / f"loop{suffix}").symlink_to(folder / f"loop{suffix}")
        (folder / f"there{suffix}").symlink_to(folder / f"back{suffix}")
        (folder / f"back{suffix}").symlink_to(folder / f"there{suffix}")
        (folder / f"nowhere{suffix}").symlink_to(folder / "missing")
    return sorted(folder.iterdir())


@pytest.mark.fault(7)
def test_a_path_that_is_no_plain_file_is_refused_within_a_second(odd_paths: list[Path], measured: Measured) -> None:
    slowest = 0.0
    for path in [*odd_paths, Path("/dev/zero")]:
        for read in (read_image, VideoFile):
            started = time.perf_counter()
            with pytest.raises(InputError, match=path.name):
                read(path)
            slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1.0
    measured(f"{len(odd_paths)} fifos, devices and broken links: refused within {1000 * slowest:.1f} ms each")


@pytest.mark.fault(7)
def test_a_folder_with_such_paths_is_reported_and_its_pictures_are_scored(
    odd_paths: list[Path], tmp_path: Path, measured: Measured
) -> None:
    folder = odd_paths[0].parent
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "picture.png").write_bytes(encoded(picture(), ".png"))
    started = time.perf_counter()
    done = screen(tmp_path, folder, *odd_paths, "/dev/zero")
    seconds = time.perf_counter() - started
    assert done.exit_code == 1, done.errors
    failed = [record["source"] for record in done.records if record["type"] == "error"]
    assert sorted(failed) == sorted([*map(str, odd_paths), *map(str, odd_paths), "/dev/zero"])
    assert [r["source"] for r in done.records if r["type"] == "image"] == [str(folder / "picture.png")]
    measured(
        f"asr-screen on all of them, by name and in a folder: {len(failed)} errors, {seconds:.1f} s with its start"
    )


@pytest.mark.fault(29)
def test_every_file_of_a_mixed_folder_is_accounted_for(tmp_path: Path, measured: Measured) -> None:
    """The roll of a phone with pictures, videos, what cannot be read and what is neither, in every way of naming it."""
    roll = Path(shutil.copytree(Path(__file__).parents[1] / "runtime/roll", tmp_path / "roll"))
    clips = Path(asr_runtime.__file__).parent / "clips"
    photo = encoded(picture(), ".jpg")
    contents = {
        **{f"clip-{path.stem}{path.suffix}": path.read_bytes() for path in clips.iterdir()},
        "Kein Bild.jpg": b"This is no picture.",
        "cut.jpg": photo[: len(photo) // 2],
        "no suffix": photo,
        "wrong.png": photo,
        "notes.txt": b"hello",
        "report.pdf": b"%PDF-1.4 ",
        "empty.mp4": b"",
        "unfinished.mp4": b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41\0\0\0\x08free\0\0\0\0mdat" + bytes(5000),
    }
    for name, data in contents.items():
        (roll / name).write_bytes(data)
    (roll / "again.jpg").symlink_to(roll / "no suffix")
    os.mkfifo(roll / "pipe")
    names = sorted(str(path) for path in roll.iterdir())
    accounts = set()
    for arguments in ([roll], [f"{roll}/*", f"{roll}/.*"], names):
        done = screen(tmp_path, *arguments, "--fps", 1)
        assert done.exit_code == 1, done.errors
        (summary,) = (record for record in done.records if record["type"] == "summary")
        assert summary["read"] == summary["scored"] + summary["failed"] + summary["dropped"] + summary["skipped"]
        whole = sorted(r["source"] for r in done.records if r["type"] in ("image", "video"))
        failed = sorted(r["source"] for r in done.records if r["type"] == "error" and not r["source"].endswith("pipe"))
        accounts.add((tuple(whole), tuple(failed)))
    ((whole, failed),) = accounts
    assert len(whole) == 5 + len(list(clips.iterdir())) + 2
    assert {Path(name).name for name in failed} == {
        "IMG_raw.DNG",
        "Kein Bild.jpg",
        "cut.jpg",
        "empty.mp4",
        "unfinished.mp4",
    }
    measured(
        f"{len(names)} files by folder, pattern and name: {len(whole)} scored, {len(failed)} errors, others ignored"
    )


@pytest.mark.fault(7)
@pytest.mark.heavy
def test_100_000_files_are_listed_once_and_the_first_result_comes_within_two_seconds(
    tmp_path: Path, measured: Measured
) -> None:
    folder = tmp_path / "many"
    for part in range(10):
        (folder / f"part{part}").mkdir(parents=True)
        (folder / f"part{part}" / "up").symlink_to(folder, target_is_directory=True)
    image = encoded(picture(0, 8, 8), ".png")
    for number in range(MANY):  # half of them in one folder
        (folder / (f"part{number % 10}" if number % 2 else ".") / f"{number}.png").write_bytes(image)
    first = None
    names = set()
    started = time.perf_counter()
    for source in Expansion([str(folder)]):
        assert isinstance(source, Source)
        assert source.name not in names
        names.add(source.name)
        first = first or time.perf_counter() - started
    seconds = time.perf_counter() - started
    assert len({Path(name).name for name in names}) == len(names) == MANY
    assert first is not None
    assert first < 2.0
    measured(f"{MANY} files: each once, listed in {seconds:.1f} s, the first after {first:.2f} s")

    (tmp_path / "model.onnx").write_bytes(build_model())
    command = command_line("screen", folder, "--model", tmp_path / "model.onnx", "--format", "jsonl", "--threads", 1)
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        record = json.loads(process.stdout.readline())
        first = time.perf_counter() - started
        process.terminate()
        process.communicate(timeout=20)
    assert record["type"] == "image"
    assert first < 2.0
    measured(f"asr-screen on it: first result {first:.2f} s after its start")
