"""`asr-screen --ray`: list, screen on a cluster, add up; what an earlier run finished stays."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asr_runtime.archive.inputs import Inputs, is_in_a_store
from asr_runtime.archive.ledger import Account, ArchiveFormat, Ledger
from asr_runtime.archive.ray_cluster import ChunkTask, connected, run_chunks
from asr_runtime.inference.builtin import BUILTIN
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import LookChoice, choose_looks
from asr_runtime.records import SummaryRecord

__all__ = ["screen_archive"]

_CHUNK = 200  # inputs: some seconds of work, so that a crash costs little and writing costs nothing


def screen_archive(
    sources: Sequence[str],
    detector: Detector,
    folder: str,
    *,
    address: str = "local",
    form: ArchiveFormat = "jsonl",
    look: LookChoice = "auto",
    windows: bool = False,
    fps: float | None = None,
    model: str | None = None,
    device: str = "auto",
    deadline: float = 30.0,
    chunk: int = _CHUNK,
    stop: threading.Event | None = None,
    progress: Callable[[Account, int, int], None] | None = None,
) -> SummaryRecord:
    """Screen an archive on a Ray cluster and write one record per image, frame, segment, video and failure.

    The folder gets parts, each whole or not there, and the account of each. When it holds those of an earlier run with
    the same arguments, the run goes on after them; an input has its records exactly once, whatever was killed.

    Args:
        sources: see `archive.inputs.Inputs`.
        detector: of `model`; checks it before anything is sent. Workers load the model themselves.
        folder: where parts and summary go; every node can write there. May be a URL of an object store.
        address: of the cluster; see `ray_cluster.connected`.
        form: of the parts.
        look: as for `screening.screen`.
        windows: as for `screening.screen`.
        fps: as for `screening.screen`.
        model: path or built-in name; the same file on every node.
        device: as for `Detector`.
        deadline: seconds for one inference.
        chunk: inputs that are written together.
        stop: ends the run early; the same call goes on.
        progress: is called with the account so far, the number of chunks that are complete, and that of all.

    Returns:
        The account of the archive, earlier runs included. After `stop` it covers what is complete.

    Raises:
        ConfigurationError: no source, no cluster, or a folder with records of other arguments.
        OutputError: the folder cannot be written.
        InferenceError: workers died over one chunk again and again.
    """
    started = time.perf_counter()
    stop = stop or threading.Event()
    looks = choose_looks(detector, detector.card, look, None, 0)
    ledger = Ledger(folder, form)
    asked: dict[str, Any] = {"sources": list(sources), "sha256": detector.sha256, "format": form, "look": look}
    chunks, ignored = ledger.plan({**asked, "windows": windows, "fps": fps}, Inputs(sources), chunk)
    finished = ledger.finished()
    todo = [number for number in range(chunks) if number not in finished]
    progress = progress or (lambda account, finished, chunks: None)

    total, complete = _total(finished), len(finished)

    def count(number: int) -> None:
        nonlocal total, complete
        total, complete = total + (ledger.account(number) or Account()), complete + 1
        progress(total, complete, chunks)

    progress(total, complete, chunks)
    if todo:
        # Workers have working folders of their own.
        place = folder if is_in_a_store(folder) else os.path.abspath(folder)  # noqa: PTH100
        file = os.path.abspath(model) if model is not None and model not in BUILTIN else model  # noqa: PTH100
        task = ChunkTask(place, form, file, detector.sha256, device, look, windows, fps, deadline)
        with connected(address) as cores:
            run_chunks(task, todo, cores, stop, count)
    total = _total(ledger.finished())
    summary = SummaryRecord(
        read=total.read,
        scored=total.scored,
        failed=total.failed,
        dropped=0,
        skipped=total.skipped,
        ignored=ignored,
        reconnects=0,
        given_up=0,
        seconds=time.perf_counter() - started,
        model=detector.name,
        sha256=detector.sha256,
        provider=detector.provider,
        looks=looks,
    )
    if not stop.is_set():
        ledger.summarise(summary.to_dict())
    return summary


def _total(accounts: Mapping[int, Account]) -> Account:
    return sum(accounts.values(), Account())
