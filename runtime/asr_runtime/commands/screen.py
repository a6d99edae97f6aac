"""asr-screen."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asr_runtime.command import EXIT_GIVEN_UP, EXIT_INPUT_FAILED, Command, command, model_options, trust_anchors_option
from asr_runtime.commands.screen_archive import ADDRESS, refuse_with_ray, screen_with_ray
from asr_runtime.errors import ConfigurationError
from asr_runtime.heap import keep_freed_memory
from asr_runtime.interrupt import stop_on_signals
from asr_runtime.machine import usable_cores
from asr_runtime.reports.text import FORMATS

if TYPE_CHECKING:
    from asr_runtime.inference.looking import LookChoice
    from asr_runtime.provenance.reader import ClaimReader
    from asr_runtime.sources.live import LiveSource

__all__ = ["screen_command"]


_POSITIVE = click.FloatRange(min=0, min_open=True)


class _Screen(Command):
    """Ends the program at once where threads of a run are left.

    One may be inside OpenCV or onnxruntime, or wait on standard input, and Python aborts when it ends around them.
    """

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Run the command line; that of the process if none is given."""
        try:
            return super().main(args, *more, **options)
        except SystemExit as end:
            if args is None and any(thread.name.startswith("asr-") for thread in threading.enumerate()):
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(AttributeError, OSError, ValueError):  # gone, or cannot be written
                        stream.flush()
                os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
            raise


@command("asr-screen", kind=_Screen, silences_libraries=True)
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option(
    "--sources", "listed", metavar="FILE", help='TOML file of live sources; each line is name = "rtsp://...".'
)
@model_options
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Files to score side by side.  [default: every usable core; 1 for one picture, cameras, or with --threads]",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads of one inference.  [default: usable cores / jobs]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice([*FORMATS, "parquet"]),
    help="parquet is for --ray.  [default: table; with --ray: jsonl]",
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Screen an archive on a Ray cluster: HOST:PORT, auto, or local (the default) for this machine; -o names a "
    "folder, and the same command line goes on after a crash.",
)
@click.option("--chunk", type=click.IntRange(min=1), default=200, help="Inputs that --ray screens and writes together.")
@click.option("-o", "--output", metavar="FILE", help="File for the results.  [default: standard output]")
@click.option("--fps", type=_POSITIVE, help="Frames to score per second of video.  [default: all]")
@click.option("--key-frames", is_flag=True, help="Of RTSP cameras, decode key frames only: for many cameras at once.")
@click.option(
    "--duration",
    type=_POSITIVE,
    metavar="SECONDS",
    help="The run ends after this time.  [default: live sources are watched for ever]",
)
@click.option(
    "--reconnect/--no-reconnect",
    default=True,
    help="Connect again to a live source that is lost; otherwise it is given up.",
)
@click.option(
    "--deadline",
    type=_POSITIVE,
    metavar="SECONDS",
    default=30.0,
    help="Longest time for one inference. Three timeouts in a row end the run.",
)
@click.option("--folders-in-list", is_flag=True, help="A list of paths on standard input may name folders.")
@click.option(
    "--isolate",
    is_flag=True,
    help="Decode in separate processes, so that a decoder that crashes or hangs cannot stop the run.",
)
@click.option("--annotate", metavar="OUT.mkv", help="Write videos with the verdict drawn in, one file per source.")
@click.option("--snapshots", metavar="DIR", help="Write a JPEG of every picture whose verdict is ai.")
@click.option(
    "--look",
    type=click.Choice(["auto", "centre", "whole", "quick"]),
    default="auto",
    help="Score the centre of each picture, or windows all over it. auto: what the model's card advises.",
)
@click.option(
    "--claims",
    is_flag=True,
    help="Records say what the file claims about its origin (C2PA, IPTC, EXIF, notes of generators).",
)
@trust_anchors_option
@click.option(
    "--windows",
    is_flag=True,
    help="Records list the windows that were scored, with their probabilities (--format jsonl).",
)
@click.option(
    "--evidence",
    metavar="DIR",
    help="Write a map of every picture whose verdict is ai: the parts that raise its probability.",
)
@click.option(
    "--watch",
    "watched",
    multiple=True,
    metavar="DIR",
    help="Screen files as they arrive in a folder, until the run is stopped.",
)
@click.option(
    "--state",
    metavar="FILE",
    help="File that remembers what --watch has screened, for the next run; -o FILE is then continued.",
)
@click.option(
    "--webhook",
    multiple=True,
    envvar="ASR_WEBHOOK",
    metavar="URL",
    help="Web address that alerts are sent to, as JSON by POST.",
)
@click.option(
    "--mqtt",
    multiple=True,
    envvar="ASR_MQTT",
    metavar="mqtt://HOST/TOPIC",
    help="MQTT topic that alerts are published to.",
)
@click.option("--view", metavar="[HOST:]PORT", help="Serve a live page of all sources.  [default HOST: 127.0.0.1]")
@click.option(
    "--token-file",
    metavar="FILE",
    help="File with the token that viewers of the page must show; needed where other machines can open it.",
)
@click.option(
    "--metrics", metavar="[HOST:]PORT", help="Serve /metrics (Prometheus) and /healthz.  [default HOST: 127.0.0.1]"
)
def screen_command(
    sources: tuple[str, ...],
    listed: str | None,
    model: str | None,
    sha256: str | None,
    device: str,
    precision: str,
    jobs: int | None,
    threads: int | None,
    form: str | None,
    ray: str | None,
    chunk: int,
    output: str | None,
    fps: float | None,
    key_frames: bool,
    duration: float | None,
    reconnect: bool,
    deadline: float,
    folders_in_list: bool,
    isolate: bool,
    annotate: str | None,
    snapshots: str | None,
    look: LookChoice,
    claims: bool,
    trust_anchors: str | None,
    windows: bool,
    evidence: str | None,
    watched: tuple[str, ...],
    state: str | None,
    webhook: tuple[str, ...],
    mqtt: tuple[str, ...],
    view: str | None,
    token_file: str | None,
    metrics: str | None,
) -> None:
    """Score images and videos: the probability that each was generated by AI.

    SOURCE is an image or video file, a folder (with its subfolders), a glob pattern, or a live source: rtsp://, http://
    (MJPEG, HLS), /dev/video0, or the index of a camera. - is standard input: the bytes of one image or video, or a list
    of files, one per line or separated by NUL.

    A URL of a picture or a video file is fetched once; with --fps or --duration, the URL of a picture is a camera. The
    first bytes of a file decide its format, not its name. A file that is named twice is screened once.

    Exit codes: 0 all scored; 1 some input failed; 2 usage, model or device refused; 3 output cannot be
    written; 4 a live source, or inference, was given up; 130 or 143 stopped by SIGINT or SIGTERM with all output
    complete.
    """
    from asr_runtime.inference.detector import Detector
    from asr_runtime.inference.looking import check_windows
    from asr_runtime.sources.live import LiveSource, is_live, live_source, named_sources
    from asr_runtime.sources.remote import remote_file
    from asr_runtime.sources.watch import Journal, Watch

    if ray is not None:
        refuse_with_ray(click.get_current_context())
        if not ADDRESS.fullmatch(ray):  # `--ray photos`: the option took the first source
            sources, ray = (ray, *sources), "local"
        options = {"look": look, "windows": windows, "fps": fps, "model": model, "device": device}
        options |= {"deadline": deadline, "chunk": chunk}
        screen_with_ray(sources, ray, form or "jsonl", output, sha256, options)
        return
    form = form or "table"
    if form == "parquet":
        raise ConfigurationError(f"--format parquet: belongs to --ray; expected one of {', '.join(FORMATS)}")
    if state and not watched:
        raise ConfigurationError("--state: belongs to --watch DIR; leave it out, or name a folder to watch")
    if windows and not FORMATS[form].has_windows:
        raise ConfigurationError(f"--windows: format {form} has no place for windows; expected --format jsonl")
    if trust_anchors and not claims:
        raise ConfigurationError("--trust-anchors: belongs to --claims; leave it out, or give that too")
    if claims and not FORMATS[form].has_claims:
        raise ConfigurationError(f"--claims: format {form} has no place for claims; expected --format table or jsonl")
    is_watched = fps is not None or duration is not None
    every = [
        live_source(source) if is_live(source) and not remote_file(source, is_watched=is_watched) else source
        for source in sources
    ]
    every += named_sources(listed) if listed else []
    live = [source.name for source in every if isinstance(source, LiveSource)]
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(stop_on_signals())
        journal = stack.enter_context(contextlib.closing(Journal(state)))
        reader = stack.enter_context(_claim_reader(trust_anchors)) if claims else None
        many = _are_many_files(every)
        detector = Detector(
            model,
            device=device,
            precision=precision,
            threads=threads,
            sha256=sha256,
            deadline=deadline,
            jobs=jobs or (usable_cores() if many and not threads else 1),
        )
        if evidence:
            check_windows(detector.card)
        if many:
            keep_freed_memory()
        if detector.choice:
            click.echo(f"asr-screen: {detector.choice}", err=True)
        # Imported after the model is loaded: loading has a peak of memory, and OpenCV's 28 MB would add to it.
        from asr_runtime.reports.outputs import Outputs
        from asr_runtime.screening.screen import screen

        outputs = Outputs(
            form,
            output,
            annotate=annotate,
            snapshots=snapshots,
            evidence=evidence,
            score_map=detector.map,
            alerts=(*webhook, *mqtt),
            metrics=metrics,
            view=view,
            token_file=token_file,
            live=live,
            append=state is not None,
            done=journal.add if watched else None,
        )
        records = screen(
            every,
            detector,
            fps=fps,
            stop=interrupt.stop,
            reconnect=reconnect,
            duration=duration,
            isolate=isolate,
            key_frames=key_frames,
            look=look,
            windows=windows,
            claims=reader,
            watch=Watch(watched, journal) if watched else None,
            folders_in_list=folders_in_list,
        )
        summary = outputs.run(records.with_pictures())
        code = EXIT_GIVEN_UP if summary.given_up else EXIT_INPUT_FAILED if summary.failed else 0
    click.get_current_context().exit(code if interrupt.exit_code is None else interrupt.exit_code)


def _are_many_files(sources: Sequence[str | LiveSource]) -> bool:
    """Whether files can be scored side by side; for one picture, and cameras, an inference has all cores."""
    from asr_runtime.media.formats import kind_by_suffix

    is_one_picture = (
        len(sources) == 1 and kind_by_suffix(str(sources[0]), None) == "image" and Path(str(sources[0])).is_file()
    )
    has_camera = any(not isinstance(source, str) for source in sources)
    return not (is_one_picture or has_camera)


def _claim_reader(trust_anchors: str | None) -> contextlib.closing[ClaimReader]:
    from asr_runtime.provenance.reader import ClaimReader, read_trust_anchors

    return contextlib.closing(ClaimReader(trust_anchors and read_trust_anchors(trust_anchors)))
