"""Claims of a file, read in a separate process: a hostile manifest costs its claims, not the run."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO

from asr_runtime.claims import Claim
from asr_runtime.errors import ConfigurationError, DependencyError
from asr_runtime.isolation.worker import START_SECONDS, ChildError, ChildProcess, Limit, ParentProcess, malformed_answer
from asr_runtime.sources.expand import Source
from asr_runtime.sources.steps import Decoded

__all__ = ["ClaimReader", "check_claims", "read_trust_anchors"]

_REQUEST = struct.Struct("<IQ")  # bytes of a path; bytes of the data
_ANSWER = struct.Struct("<I")  # bytes of a JSON list
_MEMORY = 1 << 30
_OPEN_FILES = 32
_MOST = 20  # claims of one file
_READY = b"[]"
_MIME = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG", "image/png"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)


def check_claims() -> None:
    """Refuse to read claims where a package for it is missing.

    Raises:
        DependencyError: one is.
    """
    if missing := [package for package in ("c2pa", "PIL") if importlib.util.find_spec(package) is None]:
        raise DependencyError(f"claims: {missing[0]} is not installed; pip install 'asrnet-edge[provenance]'")


def read_trust_anchors(path: str) -> str:
    """Read a file of certificates whose signatures are trusted.

    Raises:
        ConfigurationError: it cannot be read, or holds no certificate.
    """
    try:
        text = Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"trust anchors {path}: cannot be read ({error})") from None
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ConfigurationError(f"trust anchors {path}: expected certificates in the form PEM")
    return text


class ClaimReader:
    """Reads what file after file says about itself in one confined child process (Linux), which starts when needed.

    Args:
        trust_anchors: certificates of the trusted signers, PEM; None: no signer is trusted.
        seconds: for one file.

    Raises:
        DependencyError: a package of the extra `provenance` is missing.
    """

    def __init__(self, trust_anchors: str | None = None, seconds: float = 10.0) -> None:
        check_claims()
        self._anchors = trust_anchors
        self._seconds = seconds
        self._child: ChildProcess | None = None
        self._turn = threading.Lock()

    def read(self, source: Source) -> tuple[Claim, ...]:
        """Return the claims of an image or a video; one that cannot be read has a claim that says so.

        Calls from several threads take turns.
        """
        with self._turn:
            return self._read(source)

    def _read(self, source: Source) -> tuple[Claim, ...]:
        try:
            return self._ask(source)
        except ChildError as failure:
            self.close()
            return (Claim("file", "other", f"What the file says about itself cannot be read: {failure}."),)
        except BaseException:
            self.close()
            raise

    def with_claims(self, source: Source, steps: Iterable[Decoded]) -> Iterator[Decoded]:
        """Yield the steps of a source; the image, or the end of the video, carries its claims."""
        for step in steps:
            is_result = step.ends or (step.image is not None and step.frame is None)
            yield replace(step, claims=self.read(source)) if is_result else step

    def close(self) -> None:
        """End the child; a later `read` starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _ask(self, source: Source) -> tuple[Claim, ...]:
        child = self._child
        if child is None or not child.is_alive():
            self.close()
            child = self._child = ChildProcess("asr_runtime.provenance.reader", _MEMORY)
            anchors = (self._anchors or "").encode()
            child.write(struct.pack("<I", len(anchors)) + anchors, START_SECONDS)
            self._answer(child, START_SECONDS)
        path = b"" if source.data is not None else os.fsencode(source.path or source.name)
        data = source.data or b""
        for part in (_REQUEST.pack(len(path), len(data)), path, data):
            child.write(part, self._seconds)
        return self._answer(child, self._seconds)

    def _answer(self, child: ChildProcess, seconds: float) -> tuple[Claim, ...]:
        limit = Limit(seconds)
        (length,) = _ANSWER.unpack(child.read(_ANSWER.size, limit))
        text = child.read_text(length, limit)
        try:
            return tuple(Claim.from_dict(data) for data in json.loads(text))
        except (ValueError, TypeError, RecursionError):
            raise malformed_answer() from None


def _serve(memory: int) -> None:
    """The child's end: read claims until the parent ends."""
    from asr_runtime.provenance.credentials import read_credentials
    from asr_runtime.provenance.notes import read_notes

    parent = ParentProcess(memory, _OPEN_FILES)
    (length,) = struct.unpack("<I", parent.read(4))
    anchors = parent.read(length).decode() or None
    parent.write(_ANSWER.pack(len(_READY)) + _READY)
    while True:
        path_length, data_length = _REQUEST.unpack(parent.read(_REQUEST.size))
        path, data = os.fsdecode(parent.read(path_length)), parent.read(data_length)
        claims: list[Claim] = []
        try:
            with Path(path).open("rb") if path else BytesIO(data) as file:
                mime = _mime(file)
                if mime is not None:
                    claims += read_credentials(file, mime, anchors)
                    file.seek(0)
                if mime is None or mime.startswith("image/"):
                    claims += read_notes(file)
        except OSError as error:
            claims = [Claim("file", "other", f"The file cannot be read ({error.strerror}).")]
        answer = json.dumps([claim.to_dict() for claim in claims[:_MOST]]).encode()
        parent.write(_ANSWER.pack(len(answer)) + answer)


def _mime(file: IO[bytes]) -> str | None:
    """Name the media type of what may hold Content Credentials; leaves the file at its beginning."""
    head = file.read(16)
    file.seek(0)
    for start, mime in _MIME:
        if head.startswith(start):
            return mime
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return "image/avif" if head[8:12] in (b"avif", b"avis") else "video/mp4"
    return None


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
