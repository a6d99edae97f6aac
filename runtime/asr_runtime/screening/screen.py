"""Sources -> records: what `asr-screen` does, as one function. `feed` decodes, `scorer` gives the verdicts."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING

from asr_runtime.cameras.camera import STALLED_AFTER
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import LookChoice, choose_looks
from asr_runtime.records import Record
from asr_runtime.screening.feed import Feed, FileFeed, FileListing
from asr_runtime.screening.parallel import Parallel
from asr_runtime.screening.scorer import Scorer, Step
from asr_runtime.sources.expand import Expansion, check_sources
from asr_runtime.sources.live import LiveSource, is_live, live_source
from asr_runtime.sources.remote import RemoteFile, remote_file
from asr_runtime.sources.steps import Decoded
from asr_runtime.sources.watch import Watch
from asr_runtime.windows import LookKind

if TYPE_CHECKING:
    from asr_runtime.cameras.streams import Stream
    from asr_runtime.provenance.reader import ClaimReader

__all__ = ["Screening", "Step", "open_isolated_stream", "open_stream", "screen", "screen_decoded"]

_KEY_FRAME_STALL = 12.0  # seconds; cameras send a key frame every 1 to 10


def open_stream(url: str, fps: float | None = None, *, key_frames: bool = False) -> Stream:
    """Open a live source in this process; see `cameras.streams.open_stream`."""
    from asr_runtime.cameras.streams import open_stream  # the network's modules, which screening files does not need

    return open_stream(url, fps, key_frames=key_frames)


def open_isolated_stream(url: str, fps: float | None = None, *, key_frames: bool = False) -> Stream:
    """Open a live source in a separate process; see `isolation.stream.IsolatedStream`."""
    from asr_runtime.isolation.stream import IsolatedStream

    return IsolatedStream(url, fps=fps, key_frames=key_frames)


class Screening(Iterator[Record]):
    """The records of one run, in order, as they come.

    The run goes on while records are taken. `close` ends it early, without the records that are left.
    """

    def __init__(self, steps: Generator[Step, None, None]) -> None:
        self._steps = steps

    def __next__(self) -> Record:
        return next(self._steps)[0]

    def with_pictures(self) -> Generator[Step, None, None]:
        """Give every record with its picture: uint8 BGR `(H, W, 3)`; None where the record scores no picture."""
        return self._steps

    def close(self) -> None:
        """End the run and its threads."""
        self._steps.close()


def screen(
    sources: Sequence[str | os.PathLike[str] | LiveSource],
    detector: Detector,
    *,
    fps: float | None = None,
    stop: threading.Event | None = None,
    stdin: IO[bytes] | None = None,
    reconnect: bool = True,
    duration: float | None = None,
    isolate: bool = False,
    look: LookChoice = "auto",
    windows: bool = False,
    claims: ClaimReader | None = None,
    watch: Watch | None = None,
    folders_in_list: bool = False,
    key_frames: bool = False,
) -> Screening:
    """Score every image and video frame of the sources.

    Files are scored in order, and frames of live sources between them as they arrive. Nothing is collected in memory:
    folders are listed, videos decoded and records given one by one. No file is dropped. Of each live source the
    newest frame is scored; the frames that it replaced are counted as dropped.

    Args:
        sources: image or video file, folder, glob pattern, `-` for standard input (see `sources.expand`), or a live
            source: `rtsp://`, `http://`, a video device, a camera's index, or a `LiveSource`. A URL whose path ends
            like a file's name is fetched once and screened as a file. With `fps` or `duration`, a URL of a picture is
            a camera that is read again and again.
        detector: scores the frames. With `jobs` above 1, so many files are decoded and scored side by side; the order
            of records and every figure in them stay the same.
        fps: frames to score per second of video, above 0; None: all.
        stop: when it is set, the run ends after the current frame, with its summary.
        stdin: unbuffered binary stream for the source `-`; None: the standard input of the process.
        reconnect: try a live source again when it is lost; otherwise it is given up.
        duration: seconds after which the run ends, above 0; None: live sources are watched for ever.
        isolate: decode files in a separate process, and each live source in another, so that a decoder that crashes
            or hangs cannot stop the run.
        look: `centre` or `whole` for every picture. `auto` does what the model's card advises; for cameras it takes
            `centre` where looking at the whole takes longer than the time between two frames allows
            (`inference.looking.choose_looks`).
        windows: records carry the windows that were looked at.
        claims: reads what files say about themselves for their records; None: records carry no claims.
        watch: folders whose files are screened as they arrive; the run then ends only when it is stopped.
        folders_in_list: a list of paths on standard input may name folders.
        key_frames: of RTSP cameras, decode key frames only, which takes a tenth of the time. The others are not
            counted, and a source counts as stalled after 12 seconds instead of 2.

    Returns:
        Iterator of one record per image, frame, failure, segment, video and change of a live source's state, then
        exactly one `SummaryRecord`. A damaged video gives its frames and then one error that says it is partial.

    Raises:
        ConfigurationError: at once, before anything is read: no source, an unknown kind of URL, the same live source
            twice, `fps` or `duration` not above 0, a whole look of a model without figures for it.
    """
    arguments = [source if isinstance(source, LiveSource) else os.fspath(source) for source in sources]
    files, live = _files_and_live(arguments, is_watched=fps is not None or duration is not None)
    if files or watch is None:
        check_sources(files, live)
    for name, value in (("fps", fps), ("duration", duration)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"{name} {value}: expected a number above 0")
    looks = choose_looks(detector, detector.card, look, fps, len(live))
    listing = FileListing(Expansion(files, stdin, folders_in_list=folders_in_list), watch)
    file_feed = FileFeed(listing, fps, isolate, claims)
    feed = Feed(
        file_feed if files or watch else None,
        live,
        connect=functools.partial(open_isolated_stream if isolate else open_stream, fps=fps, key_frames=key_frames),
        stalled_after=_KEY_FRAME_STALL if key_frames else STALLED_AFTER,
        fps=fps,
        reconnect=reconnect,
        score=_parallel(detector, looks, file_feed) if detector.jobs > 1 else None,
    )

    def steps() -> Generator[Step, None, None]:
        scorer = Scorer(detector, looks, windows=windows)
        with feed:
            for item in feed.items(stop or threading.Event(), math.inf if duration is None else duration):
                yield from scorer.take(item)
                if scorer.is_hopeless:
                    break
            feed.leave()
            for failure in feed.failures_left():
                yield from scorer.take(failure)
            yield from scorer.finish(feed.camera_counts(), listing.ignored)

    return Screening(steps())


def _parallel(detector: Detector, looks: dict[str, LookKind], files: FileFeed) -> Parallel:
    return Parallel(detector.jobs, lambda image, kind: detector.look(image, looks[kind]), files.decoder)


def screen_decoded(
    items: Iterable[Decoded], detector: Detector, *, look: LookChoice = "auto", windows: bool = False
) -> Screening:
    """Score pictures that were decoded elsewhere, in the caller's thread.

    Args:
        items: steps of one source after another, as `sources.steps.decode_source` gives them.
        detector: scores the pictures.
        look: as for `screen`.
        windows: as for `screen`.

    Returns:
        Records as `screen` gives them for files; a summary is the last.
    """

    def steps() -> Generator[Step, None, None]:
        scorer = Scorer(detector, choose_looks(detector, detector.card, look, None, 0), windows=windows)
        for item in items:
            yield from scorer.take(item)
            if scorer.is_hopeless:
                break
        yield from scorer.finish()

    return Screening(steps())


def _files_and_live(
    arguments: Sequence[str | LiveSource], *, is_watched: bool
) -> tuple[list[str | RemoteFile], list[LiveSource]]:
    """Return what is read from files, and live sources."""
    files: list[str | RemoteFile] = []
    live: list[LiveSource] = []
    for argument in arguments:
        if isinstance(argument, LiveSource):
            live.append(argument)
        elif remote := remote_file(argument, is_watched=is_watched):
            files.append(remote)
        elif is_live(argument):
            live.append(live_source(argument))
        else:
            files.append(argument)
    return files, live
