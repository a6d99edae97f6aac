"""One chunk of an archive -> its records: decoded in a separate process, scored in this one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from asr_runtime.archive.inputs import ArchiveInput, is_in_a_store
from asr_runtime.archive.ledger import Account
from asr_runtime.errors import SourceError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import LookChoice
from asr_runtime.isolation.files import IsolatedDecoder
from asr_runtime.media.formats import HEAD_BYTES, recognise
from asr_runtime.records import SummaryRecord
from asr_runtime.screening.screen import screen_decoded
from asr_runtime.sources.expand import Source, Unreadable
from asr_runtime.sources.remote import fetched_file, remote_file
from asr_runtime.sources.steps import Decoded

__all__ = ["ChunkScreener"]

_MOST_BYTES = {"image": 64_000_000, "video": 2_000_000_000}
_BLOCK = 1 << 20


class ChunkScreener:
    """Screens chunk after chunk with one detector and one decoding process.

    Args:
        detector: scores the pictures.
        look: as for `screening.screen`.
        windows: as for `screening.screen`.
        fps: frames to score per second of video; None: all.
    """

    def __init__(self, detector: Detector, *, look: LookChoice, windows: bool, fps: float | None) -> None:
        self._detector, self._look, self._windows, self._fps = detector, look, windows, fps
        self._decoder = IsolatedDecoder()

    def screen(self, inputs: Sequence[ArchiveInput]) -> tuple[list[dict[str, Any]], Account]:
        """Return the records of the inputs, in order, without a summary, and what they add up to."""
        run = screen_decoded(self._decoded(inputs), self._detector, look=self._look, windows=self._windows)
        *records, summary = run
        assert isinstance(summary, SummaryRecord)
        account = Account(len(inputs), summary.read, summary.scored, summary.failed, summary.skipped)
        return [record.to_dict() for record in records], account

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def _decoded(self, inputs: Sequence[ArchiveInput]) -> Iterator[Decoded]:
        for item in inputs:
            try:
                with _opened(item) as source:
                    yield from self._decoder.decode(source, self._fps)
            except SourceError as error:
                yield Decoded(item.name, error=error)


@contextlib.contextmanager
def _opened(item: ArchiveInput) -> Iterator[Source | Unreadable]:
    """Return the source of an input; a remote file is fetched once and removed afterwards.

    Raises:
        SourceError: it cannot be fetched.
    """
    if item.kind == "error":
        yield Unreadable(item.name, SourceError(item.error))
    elif is_in_a_store(item.place):
        with _from_store(item) as source:
            yield source
    elif (remote := remote_file(item.place)) is not None:
        with fetched_file(remote) as file:
            yield Source(item.name, file.kind, file.data, file.path)
    else:
        yield Source(item.name, item.kind, path=item.place)


@contextlib.contextmanager
def _from_store(item: ArchiveInput) -> Iterator[Source]:
    import fsspec

    assert item.kind != "error"
    most = _MOST_BYTES[item.kind]
    suffix = PurePosixPath(item.name).suffix
    with tempfile.NamedTemporaryFile(prefix="asr-screen-", suffix=suffix) as room:
        try:
            with fsspec.open(item.place, "rb") as file:
                while block := file.read(_BLOCK):
                    room.write(block)
                    if room.tell() > most:
                        raise SourceError(f"{item.name}: more than {most / 1e6:.0f} MB, the limit for one {item.kind}")
        except SourceError:
            raise
        except Exception as error:  # every store raises its own errors
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{item.name}: cannot be fetched ({reason})") from None
        room.flush()
        room.seek(0)
        form = recognise(room.read(HEAD_BYTES), item.name)
        yield Source(item.name, item.kind if form is None else form.kind, path=os.fspath(room.name))
