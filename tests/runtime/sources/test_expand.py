"""Arguments become sources lazily; what leads to nothing is reported and the rest goes on."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from runtime_samples import encoded, picture

from asr_runtime.errors import ConfigurationError
from asr_runtime.sources.expand import Expansion, Source, Unreadable, check_sources
from asr_runtime.sources.live import LiveSource, is_live, live_source, named_sources


def names(arguments: Sequence[object], stdin: bytes = b"") -> list[str]:
    items = list(Expansion([str(a) for a in arguments], io.BytesIO(stdin)))
    assert all(isinstance(item, Source) for item in items), items
    return sorted(item.name for item in items)


def only_error(argument: object, stdin: bytes = b"") -> str:
    (item,) = Expansion([str(argument)], io.BytesIO(stdin))
    assert isinstance(item, Unreadable)
    return str(item.error)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name in ("a.jpg", "B.PNG", "notes.txt", "x/c.webp", "x/y/d.mp4", "x/y/e.jpeg", ".hidden.jpg"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def test_a_folder_gives_all_images_and_videos_below(tree: Path) -> None:
    given = names([tree])
    expected = ["a.jpg", "B.PNG", "x/c.webp", "x/y/d.mp4", "x/y/e.jpeg", ".hidden.jpg"]
    assert given == sorted(str(tree / name) for name in expected)


def test_empty_files_are_pictures_or_videos_by_their_suffix(tree: Path) -> None:
    kinds = {Path(s.name).name: s.kind for s in Expansion([str(tree)]) if isinstance(s, Source)}
    assert kinds["d.mp4"] == "video"
    assert kinds["e.jpeg"] == kinds["B.PNG"] == "image"


def test_links_in_a_loop_end_and_give_each_file_once(tree: Path) -> None:
    for name in ("loop1", "loop2", "x/up", "x/y/up"):
        (tree / name).symlink_to(tree, target_is_directory=True)
    assert len(names([tree])) == 6
    assert len(set(names([tree / "**" / "*.jpeg"]))) == 1


def test_a_folder_is_listed_while_it_is_read(tree: Path) -> None:
    items = iter(Expansion([str(tree), "missing"]))
    next(items)
    (tree / "x" / "late.jpg").touch()
    assert str(tree / "x" / "late.jpg") in [item.name for item in items]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("?.*", ["B.PNG", "a.jpg"]),
        ("[ab].jpg", ["a.jpg"]),
        ("x/*.webp", ["x/c.webp"]),
        ("*/y/*.mp4", ["x/y/d.mp4"]),
        ("**/*.jpeg", ["x/y/e.jpeg"]),
        ("**/y", ["x/y/d.mp4", "x/y/e.jpeg"]),
        (".h*.jpg", [".hidden.jpg"]),
        ("x/*", ["x/c.webp", "x/y/d.mp4", "x/y/e.jpeg"]),
    ],
)
@pytest.mark.parametrize("absolute", [True, False])
def test_patterns_match_as_in_a_shell(
    tree: Path, pattern: str, expected: list[str], absolute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    prefix = f"{tree}/" if absolute else ""
    assert names([prefix + pattern]) == sorted(prefix + name for name in expected)


def test_a_file_whose_name_looks_like_a_pattern_is_the_file(tree: Path) -> None:
    (tree / "x[1].jpg").touch()
    (tree / "x1.jpg").touch()
    assert names([tree / "x[1].jpg"]) == [str(tree / "x[1].jpg")]


def test_what_leads_to_nothing_is_reported_and_the_rest_goes_on(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    items = list(Expansion([str(tree / "no.jpg"), str(tmp_path / "bare"), str(tree / "*.gif"), str(tree / "a.jpg")]))
    assert [type(item) for item in items] == [Unreadable, Unreadable, Unreadable, Source]
    assert "no such file" in only_error(tree / "no.jpg")
    assert "no image and no video" in only_error(tmp_path / "bare")
    assert "no file matches" in only_error(tree / "*.gif")


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_standard_input_is_a_list_of_paths(tree: Path, ending: bytes) -> None:
    wanted = [os.fsencode(tree / "a.jpg"), b"", os.fsencode(tree / "x" / "c.webp")]
    assert len(names(["-"], ending.join(wanted))) == 2
    assert len(names(["-"], ending.join(wanted) + ending)) == 2


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".avif"])
def test_standard_input_is_one_image(suffix: str) -> None:
    data = encoded(picture(), suffix)
    (source,) = Expansion(["-"], io.BytesIO(data))
    assert source == Source("-", "image", data)


@pytest.mark.parametrize("name", ["BMW.jpg", "RIFF.jpg", "II.jpg", "abc/ftyp.jpg"])
def test_a_path_that_begins_like_an_image_is_a_path(name: str) -> None:
    assert name in only_error("-", name.encode())


def test_empty_standard_input_is_reported() -> None:
    assert "empty" in only_error("-", b"\n\n")


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("rtsp://user:secret@10.0.0.1/s", "rtsp://***@10.0.0.1/s"),
        ("http://host/x.mjpg?password=secret", "http://host/x.mjpg?***"),
        ("HTTPS://a/b", "https://a/b"),
        ("0", "0"),
        ("/dev/video12", "/dev/video12"),
    ],
)
def test_live_sources_are_named_without_their_password(argument: str, name: str) -> None:
    assert is_live(argument)
    source = live_source(argument)
    assert source.name == name
    assert "secret" not in repr(source)
    refused = only_error("-", argument.encode())
    assert "a URL or a camera cannot stand in a list" in refused
    assert "secret" not in refused


def test_a_file_of_sources_gives_them_names(tmp_path: Path) -> None:
    path = tmp_path / "sources.toml"
    path.write_text('door = "rtsp://u:secret@cam/1"\nlocal = 0\n')
    assert named_sources(path) == [
        LiveSource("door", "rtsp://u:secret@cam/1"),
        LiveSource("local", "/dev/video0"),
    ]


@pytest.mark.parametrize("text", ["door: rtsp://u:secret@h/1", 'door = "secret.mp4"', "", "door = ['secret']", "\xff"])
def test_a_file_of_sources_that_is_wrong_is_refused_without_its_content(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sources.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match="sources") as caught:
        named_sources(path)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="No such file"):
        named_sources(tmp_path / "no.toml")


def test_no_source_and_two_standard_inputs_are_refused() -> None:
    twin = LiveSource("a", "rtsp://1/")
    for files, live in (([], []), (["-", "-"], []), ([], [twin, twin])):
        with pytest.raises(ConfigurationError):
            check_sources(files, live)


def test_a_file_named_like_a_camera_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("7").write_bytes(encoded(picture(), ".png"))
    assert not is_live("7")
    assert names(["7"]) == ["7"]
