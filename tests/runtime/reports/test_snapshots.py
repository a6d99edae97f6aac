"""Which pictures are kept, under which names, and what happens on a disk that takes no more."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_samples import frame, small_disk
from runtime_samples import picture

from asr_runtime.errors import OutputError
from asr_runtime.records import ErrorRecord, ImageRecord, VideoRecord
from asr_runtime.reports.flagged import FlaggedPictures
from asr_runtime.reports.snapshots import Snapshots


def snapshots_in(folder: str | Path, **options: Any) -> Snapshots:
    return Snapshots(FlaggedPictures(folder, "snapshot", **options))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_video_is_saved_when_it_turns_to_ai_and_now_and_then_while_it_stays_so(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path / "new" / "folder", min_interval=10)
    image = picture()
    for second in range(40):
        steady = "real" if second < 5 or second == 30 else "ai"
        snapshots.observe(frame("clip.mp4", steady, second, second), image)
    assert names(tmp_path / "new" / "folder") == [
        f"clip.mp4_0000{second:02}.000s_p0.750.jpg" for second in (5, 15, 25, 31)
    ]


def test_every_source_has_its_own_interval(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    for source in ("door", "yard", "door", "yard"):
        snapshots.observe(frame(source, "ai", 0, 1795409522.125, age=0.1), picture())
    assert names(tmp_path) == [f"{source}_20261123T045202.125Z_p0.750.jpg" for source in ("door", "yard")]


def test_a_clock_that_is_set_back_holds_nothing_up(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    for seconds in (1795409522, 1795400000, 1795400001, 1795400011):
        snapshots.observe(frame("door", "ai", 0, seconds, age=0.1), picture())
    assert len(names(tmp_path)) == 3


def test_images_that_are_ai_are_saved_and_others_are_not(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    for name, verdict in (("a/x.png", "ai"), ("b/x.png", "ai"), ("c/x.png", "real"), ("d/x.png", "unsure")):
        snapshots.observe(ImageRecord(name, 0.5, verdict), picture())
    snapshots.observe(ErrorRecord("e.png", "DecodeError", "e.png: is cut off"), None)
    kept = names(tmp_path)
    assert len(kept) == 2, "the same name in two folders is two files"
    assert all(name.startswith("x.png-") and name.endswith("_p0.500.jpg") for name in kept)


def test_a_video_that_is_given_twice_begins_again(tmp_path: Path) -> None:
    snapshots = snapshots_in(tmp_path)
    for probability in (0.75, 0.875):
        snapshots.observe(frame("clip.mp4", "ai", probability=probability), picture())
        snapshots.observe(VideoRecord("clip.mp4", 0.9, "ai", 0.9, 1, 0.0), None)
    assert len(names(tmp_path)) == 2


def test_a_snapshot_is_the_frame(tmp_path: Path) -> None:
    image = cv2.GaussianBlur(picture(), (0, 0), 2)
    snapshots_in(tmp_path).observe(frame("door", "ai", age=0.1), image)
    (path,) = tmp_path.iterdir()
    kept = cv2.imread(str(path))
    assert kept.shape == image.shape
    assert cv2.PSNR(kept, image) > 35


@pytest.mark.parametrize(
    "source",
    [
        "rtsp://***@10.0.0.7/cam?***",
        "../../etc/passwd",
        "a\nb\0c\x1b[2J",
        ".hidden",
        "-",
        "日本.mp4",
        "x" * 500,
        "\udcff",
    ],
)
def test_no_name_of_a_source_leaves_the_folder_or_breaks_a_file_name(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "snapshots"
    snapshots_in(folder).observe(ImageRecord(source, 0.9, "ai"), picture())
    (name,) = names(folder)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not name.startswith((".", "-"))
    assert len(name) < 100
    assert names(tmp_path) == ["snapshots"]


def test_the_oldest_of_this_run_make_room_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "earlier.jpg").write_bytes(b"kept")
    snapshots = snapshots_in(tmp_path, most=3)
    for number in range(6):
        snapshots.observe(ImageRecord(f"{number}", 0.9, "ai"), picture())
    assert names(tmp_path) == ["3_p0.900.jpg", "4_p0.900.jpg", "5_p0.900.jpg", "earlier.jpg"]


def test_a_picture_that_no_jpeg_can_hold_is_made_smaller(tmp_path: Path) -> None:
    snapshots_in(tmp_path).observe(ImageRecord("wide", 0.9, "ai"), np.zeros((4, 70000, 3), np.uint8))
    (path,) = tmp_path.iterdir()
    assert cv2.imread(str(path)).shape == (4, 65500, 3)


def test_a_full_disk_is_an_error_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "300k") as folder:
        snapshots = snapshots_in(folder)
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)

        def fill() -> None:
            for number in range(20):
                snapshots.observe(ImageRecord(str(number), 0.9, "ai"), noise)

        with pytest.raises(OutputError, match=r"_p0.900.jpg: .*No space left on device.*expected a folder with space"):
            fill()
        kept = list(folder.iterdir())
        assert kept
        assert all(cv2.imread(str(path)) is not None for path in kept)
        assert not any(path.name.startswith(".") for path in kept)


@pytest.mark.parametrize("place", ["/proc/snapshots", "/dev/null/snapshots"])
def test_a_folder_that_cannot_be_made_is_refused_at_once(place: str) -> None:
    with pytest.raises(OutputError, match=place):
        snapshots_in(place)


def test_a_folder_that_may_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    read_only = small_disk(tmp_path / "disk", "1m", read_only=True)
    with read_only as folder, pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
        snapshots_in(folder)
