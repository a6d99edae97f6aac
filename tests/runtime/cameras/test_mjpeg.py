"""MJPEG over HTTP: whatever the network does to the stream, the same pictures come out of it."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime_samples import encoded, picture

from asr_runtime.cameras.mjpeg import MAX_PART, MultipartReader
from asr_runtime.errors import SourceError

_BOUNDARY = b"picture"
# Anything may be inside a JPEG but a boundary, which a camera chooses so: end markers too (thumbnails hold them).
_INSIDE = st.lists(st.sampled_from([b"\xff\xd9", b"\r\n", b"\n", b"-", b"--", b"\0", b"jpeg", b"\xff"]), max_size=12)
_PICTURES = st.lists(_INSIDE.map(lambda pieces: b"\xff\xd8" + b"".join(pieces) + b".\xff\xd9"), min_size=1, max_size=5)
_CUTS = st.lists(st.integers(0, 400), max_size=12)


def _part(body: bytes, length: int | None, line: bytes = b"\r\n", end: bytes = b"\r\n") -> bytes:
    header = b"" if length is None else b"Content-Length: %d" % length + line
    return b"--" + _BOUNDARY + line + b"Content-Type: image/jpeg" + line + header + line + body + end


def _read(stream: bytes, cuts: list[int]) -> list[bytes]:
    reader = MultipartReader(_BOUNDARY)
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [part for start, end in itertools.pairwise(places) for part in reader.feed(stream[start:end])]


@given(_PICTURES, _CUTS, st.sampled_from([b"\r\n", b"\n"]), st.sampled_from([b"\r\n", b"\n", b""]))
def test_parts_with_a_length_are_the_same_however_the_stream_is_split(
    pictures: list[bytes], cuts: list[int], line: bytes, end: bytes
) -> None:
    stream = b"".join(_part(body, len(body), line, end) for body in pictures)
    assert _read(stream, cuts) == pictures


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), _CUTS, st.sampled_from([b"\r\n", b"\n"]))
def test_parts_without_a_length_are_the_same_however_the_stream_is_split(
    kinds: list[int], cuts: list[int], line: bytes
) -> None:
    pictures = [b"\xff\xd8" + b"picture%d" % kind * kind + b"\xff\xd9" for kind in kinds]
    stream = b"".join(_part(body, None, line) for body in pictures)
    assert _read(stream, cuts) == pictures


@given(st.integers(0, 3), st.integers(0, 200))
def test_the_end_of_a_thumbnail_is_not_that_of_its_picture(seed: int, cut: int) -> None:
    whole, small = (encoded(picture(seed, side, side), ".jpg") for side in (64, 8))
    exif = b"Exif\0\0" + small + b"more"
    body = whole[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + whole[2:]
    end = _part(body, None).index(b"more")
    assert _read(_part(body, None) * 2, [cut, end, end + len(_part(body, None))]) == [body, body]


@given(_PICTURES, st.integers(0, 4), st.integers(-3, 60), _CUTS)
def test_a_wrong_length_costs_its_part_only(pictures: list[bytes], which: int, wrong: int, cuts: list[int]) -> None:
    which %= len(pictures)
    lengths = [len(body) + (wrong if i == which else 0) for i, body in enumerate(pictures)]
    stream = b"".join(_part(body, length) for body, length in zip(pictures, lengths, strict=True))
    stream += _part(b"\xff\xd8last\xff\xd9", 8) + b"--" + _BOUNDARY
    parts = _read(stream, cuts)
    assert parts[-1] == b"\xff\xd8last\xff\xd9"
    others = pictures[:which] + pictures[which + 1 :]
    kept = iter(parts)
    assert all(body in kept for body in others), parts  # in order


@given(_PICTURES, st.binary(max_size=40), _CUTS)
def test_what_lies_between_parts_is_passed_over(pictures: list[bytes], garbage: bytes, cuts: list[int]) -> None:
    garbage = garbage.replace(b"-", b"+")
    stream = garbage + b"".join(_part(body, len(body)) + b"--" + _BOUNDARY + b"\r\n\r\n" for body in pictures)
    assert _read(stream, cuts) == pictures


@given(st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([_part(b"\xff\xd8x\xff\xd9", 5), b"--picture"]))))
def test_no_stream_breaks_the_reader(pieces: list[bytes]) -> None:
    reader = MultipartReader(_BOUNDARY)
    assert all(reader.feed(piece) is not None for piece in pieces)


def _jpeg(*inside: bytes) -> bytes:
    """A real JPEG with comments."""
    whole = encoded(picture(), ".jpg")
    comments = [b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text for text in inside]
    return whole[:2] + b"".join(comments) + whole[2:]


@given(_CUTS, st.booleans(), st.sampled_from([b"a", b"-", b"--a", b"9"]))
def test_a_length_wins_over_a_boundary_inside_the_picture(cuts: list[int], whole_part: bool, boundary: bytes) -> None:
    mark = b"\r\n--" + boundary.lstrip(b"-")
    inside = mark + b"\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8 no picture \xff\xd9" + mark if whole_part else mark
    body = _jpeg(inside, inside)
    part = mark[2:] + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body + b"\r\n"
    reader = MultipartReader(boundary)
    stream = part * 3
    places = sorted({0, len(stream), *(cut * 10 for cut in cuts if cut * 10 < len(stream))})
    read = [each for start, end in itertools.pairwise(places) for each in reader.feed(stream[start:end])]
    assert read == [body] * 3


@given(_CUTS, st.sampled_from([b"--other", b"other", b"----WebKit+x", b"--picturebook"]), st.booleans())
def test_a_stream_is_cut_at_the_boundary_that_it_uses(cuts: list[int], used: bytes, with_length: bool) -> None:
    body = _jpeg()
    length = b"Content-Length: %d\r\n" % len(body) if with_length else b""
    part = used + b"\r\nContent-Type: image/jpeg\r\n" + length + b"\r\n" + body + b"\r\n"
    assert _read(part * 3, cuts) == [body] * 3
    assert _read(b"\r\n" + part * 3, cuts) == [body] * 3


def test_a_length_that_is_too_long_is_seen_by_the_end_of_the_picture() -> None:
    body = _jpeg()
    reader = MultipartReader(_BOUNDARY)
    assert reader.feed(_part(body, len(body) + 1_000_000) + _part(b"\xff\xd8", 100)[:20]) == [body]


@pytest.mark.parametrize(
    "stream", [b"\xff\xd8" + bytes(1), b"\xff\xd8" + b"\xff\xe1\0\0" * 2 + b"\xff\xd9", b"\xff\xd9"]
)
def test_a_picture_that_comes_in_many_pieces_is_searched_once(stream: bytes) -> None:
    reader = MultipartReader(_BOUNDARY)
    reader.feed(_part(b"\xff\xd8", None, end=b""))
    started = time.process_time()
    for _ in range(20_000):
        reader.feed((stream * 2000)[:800])
    assert time.process_time() - started < 5


@pytest.mark.parametrize("with_length", [True, False])
def test_a_picture_is_there_with_its_last_byte(with_length: bool) -> None:
    body = encoded(picture(), ".jpg")
    reader = MultipartReader(_BOUNDARY)
    assert reader.feed(_part(body, len(body) if with_length else None, end=b"")) == [body]


@pytest.mark.parametrize("boundary", [b"picture", b"--picture"])
def test_a_boundary_may_be_given_with_its_dashes(boundary: bytes) -> None:
    assert MultipartReader(boundary).feed(_part(b"\xff\xd8x\xff\xd9", 5)) == [b"\xff\xd8x\xff\xd9"]


@pytest.mark.parametrize("start", [_part(b"\xff\xd8", None), _part(b"\xff\xd8", 1 << 40), b"--picture\r\nA: "])
def test_a_part_without_an_end_is_refused(start: bytes) -> None:
    reader = MultipartReader(_BOUNDARY)
    reader.feed(start)
    reader.feed(bytes(MAX_PART - 100))
    with pytest.raises(SourceError, match="does not end"):
        reader.feed(bytes(101))
