"""One rule for files that are named, matched or found: bytes say what they are, each is given once, all are counted."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image
from runtime_samples import encoded, picture, shade, write_clip

from asr_runtime import Detector, screen
from asr_runtime.media.formats import HEAD_BYTES, kind_by_suffix, recognise
from asr_runtime.records import ErrorRecord, ImageRecord, SummaryRecord
from asr_runtime.sources.expand import Expansion, Source, Unreadable
from asr_runtime.sources.walk import files_below

ROLL = Path(__file__).parents[1] / "roll"
READABLE = ["IMG_0002.HEIC", "PXL_motion.MP.jpg", "anim.gif", "scan.jp2", "stereo.mpo"]
NEITHER = {".DS_Store", "._IMG_0001.JPG", "Thumbs.db"}


@pytest.fixture
def roll(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROLL, tmp_path / "roll"))


def test_the_roll_of_a_phone_is_accounted_for_in_every_way_of_naming_it(detector: Detector, roll: Path) -> None:
    by_name = [str(path) for path in sorted(roll.iterdir())]
    for sources in ([roll], [f"{roll}/*", f"{roll}/.*"], by_name):
        *records, summary = list(screen(sources, detector))
        assert isinstance(summary, SummaryRecord)
        scored = sorted(Path(r.source).name for r in records if isinstance(r, ImageRecord))
        errors = {Path(r.source).name: r.error for r in records if isinstance(r, ErrorRecord)}
        assert scored == READABLE, sources
        assert list(errors) == ["IMG_raw.DNG"]
        assert "raw picture" in errors["IMG_raw.DNG"]
        assert (summary.read, summary.scored, summary.failed, summary.ignored) == (6, 5, 1, 3)


def test_what_is_neither_picture_nor_video_is_counted(tmp_path: Path) -> None:
    for name, data in {
        "notes.txt": b"hello\n",
        "report.pdf": b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n",
        "song.mp3": b"ID3\x03\0\0\0\0\0\0",
        "voice.m4a": b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom",
        "index.ts": b"export const x: number = 1;\n",
        "sound.wav": b"RIFF\x24\0\0\0WAVEfmt ",
        "data.bin": bytes(range(256)),
        "empty": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "photo").write_bytes(encoded(picture(), ".png"))
    os.mkfifo(tmp_path / "pipe")
    expansion = Expansion([str(tmp_path)])
    assert list(expansion) == [Source(str(tmp_path / "photo"), "image")]
    assert expansion.ignored == 9


def test_a_file_whose_suffix_promises_what_its_bytes_are_not_is_an_error(detector: Detector, tmp_path: Path) -> None:
    for name in ("page.jpg", "page.mp4", "page.heic", "page.nef"):
        (tmp_path / name).write_bytes(b"<!DOCTYPE html>\n")
    (tmp_path / "empty.png").touch()
    *records, summary = list(screen([tmp_path], detector))
    assert isinstance(summary, SummaryRecord)
    assert {Path(r.source).name for r in records if isinstance(r, ErrorRecord)} == {
        *("page.jpg", "page.mp4", "page.heic", "page.nef", "empty.png")
    }
    assert (summary.failed, summary.ignored) == (5, 0)


def test_pictures_that_no_decoder_here_knows_are_named_and_never_ignored(detector: Detector, tmp_path: Path) -> None:
    shown = Image.fromarray(picture())
    for name in ("a.sgi", "b.pcx", "c.tga"):
        shown.save(tmp_path / name)
    (tmp_path / "d.fits").write_bytes(
        b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                   16".ljust(80)
    )
    (tmp_path / "e.bik").write_bytes(b"BIKi" + bytes(40))
    *records, summary = list(screen([tmp_path], detector))
    assert isinstance(summary, SummaryRecord)
    errors = [r.error for r in records if isinstance(r, ErrorRecord)]
    assert len(errors) == 5
    assert all(form in error for form, error in zip(("SGI", "PCX", "c.tga", "FITS", "e.bik"), errors, strict=True))
    assert (summary.failed, summary.ignored) == (5, 0)


def test_a_source_without_a_name_is_said_to_be_one(detector: Detector) -> None:
    error, _ = list(screen([""], detector))
    assert isinstance(error, ErrorRecord)
    assert error.error == "a source without a name: no such file or folder"


def test_a_picture_is_one_whatever_its_name_says(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "picture.mp4").write_bytes(encoded(picture(), ".jpg"))
    shutil.copy(clip, tmp_path / "clip.jpg")
    shutil.copy(clip, tmp_path / "clip.dat")
    kinds = {Path(s.name).name: s.kind for s in Expansion([str(tmp_path)]) if isinstance(s, Source)}
    assert kinds == {"picture.mp4": "image", "clip.jpg": "video", "clip.dat": "video"}


def test_nothing_but_other_files_is_one_error(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("hello")
        names.append(str(tmp_path / f"{number}.txt"))
    for arguments in (names, [str(tmp_path)], [str(tmp_path / "*")]):
        expansion = Expansion(arguments)
        (only,) = expansion
        assert isinstance(only, Unreadable), arguments
        assert expansion.ignored == 3
    (tmp_path / "a.png").write_bytes(encoded(picture(), ".png"))
    assert len(list(Expansion([*names, str(tmp_path / "a.png")]))) == 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    (top / "b" / "deep").mkdir(parents=True)
    for name in ("z.png", "a.png", "b.png", "b/1.png", "b/deep/2.png", "B.png"):
        (top / name).write_bytes(encoded(picture(), ".png"))
    return top


@pytest.mark.parametrize(
    "arguments",
    [["**"], ["**/*"], ["*"], ["."], [".", "a.png"], ["a.png", ".", "./b/../a.png"], ["b", "**/*.png", "*"]],
)
def test_each_file_is_given_once(photos: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    (photos / "link.png").symlink_to("a.png")
    (photos / "again").symlink_to("b", target_is_directory=True)
    names = [Path(s.name).resolve() for s in Expansion(arguments) if isinstance(s, Source)]
    assert sorted(names) == sorted(path for path in photos.rglob("*.png") if not path.is_symlink())


@pytest.mark.parametrize("arguments", [[""], ["/**"], ["/**/*.png"], ["/*"]])
def test_the_order_is_that_of_the_characters(photos: Path, arguments: list[str]) -> None:
    names = [s.name for s in Expansion([f"{photos}{argument}" for argument in arguments])]
    assert names == sorted(names)
    assert len(names) == 6


def test_files_of_the_system_are_left_alone_and_counted(photos: Path) -> None:
    for name in (
        "@eaDir/a.png/SYNOPHOTO.jpg",
        ".git/objects/x.png",
        "__MACOSX/._a.png",
        "b/.Trashes/1.png",
        "b/._1.png",
    ):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(encoded(picture(), ".png"))
    for arguments in ([str(photos)], [f"{photos}/**"], [f"{photos}/*", f"{photos}/@eaDir"]):
        expansion = Expansion(arguments)
        assert len(list(expansion)) == 6
        assert expansion.ignored >= 2
    assert [Path(path).name for path in files_below(str(photos))] == [
        "B.png",
        "a.png",
        "b.png",
        "1.png",
        "2.png",
        "z.png",
    ]


def test_20_000_arguments_are_checked_within_two_seconds(detector: Detector, photos: Path) -> None:
    arguments = [f"{photos}/missing{number}.jpg" for number in range(20_000)]
    started = time.perf_counter()
    screen(arguments, detector)
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize("suffix", [".vob", ".mxf", ".m2v", ".mod", ".3g2", ".qt", ".dav", ".ivf", ".dv", ".y4m"])
def test_rare_video_formats_are_recognised_by_their_bytes(suffix: str) -> None:
    heads = {
        **{".vob": b"\0\0\x01\xba\x44", ".mod": b"\0\0\x01\xba\x44", ".m2v": b"\0\0\x01\xb3\x0a"},
        **{".mxf": b"\x06\x0e\x2b\x34\x02\x05\x01\x01", ".3g2": b"\0\0\0\x1cftyp3g2a\0\x01\0\x003g2a"},
        **{".qt": b"\0\0\x10\0moov\0\0\0\x6cmvhd", ".dav": b"DHAV\xfd\0\0\0", ".ivf": b"DKIF\0\0\x20\0VP80"},
        **{".dv": b"\x1f\x07\0\xbf\xf8", ".y4m": b"YUV4MPEG2 W160 H128 F25:1\n"},
    }
    form = recognise(heads[suffix].ljust(HEAD_BYTES, b"\x01"), "x")
    assert form is not None
    assert form.kind == "video"
    assert kind_by_suffix("x.mod", b"text") is None


def test_a_clip_of_any_container_is_found_in_a_folder_and_scored(detector: Detector, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for suffix in (".avi", ".mkv", ".mov", ".mxf", ".vob"):
        write_clip(folder / f"clip{suffix}", 5, codec="MJPG" if suffix in (".avi", ".mkv", ".mov") else "MPG2")
    (folder / "still.gif").write_bytes(encoded(shade(100, 40, 40), ".gif"))
    *records, summary = list(screen([folder], detector))
    assert isinstance(summary, SummaryRecord)
    assert summary.failed == 0, records
    assert summary.scored == 26
