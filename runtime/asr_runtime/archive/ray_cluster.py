"""Chunks of an archive -> workers of a Ray cluster, by Ray Data: one worker per core, each with a detector."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from asr_runtime import errors
from asr_runtime.archive.chunk import ChunkScreener
from asr_runtime.archive.ledger import Account, ArchiveFormat, Ledger
from asr_runtime.errors import AsrError, ConfigurationError, DependencyError, InferenceError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import LookChoice

__all__ = ["ChunkTask", "connected", "run_chunks"]

_DEATHS = 2  # of workers over one chunk, after which its inputs are screened one by one to learn which one kills
_CONNECT_SECONDS = 10.0
_MISSING = re.compile(r"No module named '([\w.]+)'")
_MOST_BLOCKS = 20_000  # tasks that Ray Data plans at once


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """What every worker needs to screen a chunk.

    Attributes:
        folder: of the ledger.
        form: of its parts.
        model: path or built-in name; the same file on every node.
        sha256: of the model; a node with another file ends the run. None: any.
        device: as for `Detector`.
        look: as for `screening.screen`.
        windows: as for `screening.screen`.
        fps: as for `screening.screen`.
        deadline: seconds for one inference.
    """

    folder: str
    form: ArchiveFormat
    model: str | None
    sha256: str | None
    device: str
    look: LookChoice
    windows: bool
    fps: float | None
    deadline: float


@contextlib.contextmanager
def connected(address: str) -> Iterator[int]:
    """Connect to a cluster and give its number of cores.

    Args:
        address: `HOST:PORT` of a cluster, `auto` for the one that this machine belongs to, `local` to start one here.

    Raises:
        ConfigurationError: there is no cluster at the address.
    """
    # What Ray says of an error, with its stack, comes back as one line of ours (`_cause`).
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    # Ray would print dumps of its state to standard output when a worker or a node is lost, which costs nothing here.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    # Ray would set OMP_NUM_THREADS by itself, with a warning in every worker.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    _check_address(address)
    home: contextlib.AbstractContextManager[dict[str, Any]] = contextlib.nullcontext({})
    with _home_of_ray() if address == "local" else home as options:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise _no_cluster(address, error) from None
        try:
            yield int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _home_of_ray() -> Iterator[dict[str, Any]]:
    """Return the options with which Ray starts on this machine, contacts no server, and leaves no files behind.

    Even with its usage reports off, a head node asks the metadata services of three clouds where it runs, unless the
    home directory holds the configuration of a cluster launcher; and it writes a token there. So it gets a home of its
    own for the time of the run.
    """
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="asr-ray-", ignore_cleanup_errors=True) as home:
        Path(home, "ray_bootstrap_config.yaml").write_text("{}\n")
        os.environ["HOME"] = home
        try:
            yield {"include_dashboard": False, "_temp_dir": home}
        finally:
            del os.environ["HOME"]
            if before is not None:
                os.environ["HOME"] = before


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try again for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> ConfigurationError:
    reason = " ".join(str(error).split())
    if address == "local":
        return ConfigurationError(
            f"--ray: Ray does not start on this machine ({reason}); set TMPDIR to a short path, /tmp"
        )
    return ConfigurationError(f"--ray {address}: no cluster answers ({reason}); start one with: ray start --head")


def run_chunks(
    task: ChunkTask, chunks: list[int], cores: int, stop: threading.Event, finished: Callable[[int], None]
) -> None:
    """Screen chunks on the cluster; returns when all are complete, or after `stop` is set.

    Args:
        task: what to do with each.
        chunks: their numbers in the plan.
        cores: workers at most.
        stop: ends the run early; chunks that are complete stay.
        finished: is called with the number of each chunk that is complete.

    Raises:
        AsrError: a worker refused its model or device, or cannot write.
        InferenceError: Ray gave up.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    rows = ray.data.from_items([{"chunk": n} for n in chunks], override_num_blocks=min(len(chunks), _MOST_BLOCKS))
    most = max(1, min(cores, len(chunks)))
    on_gpu = task.device in ("cuda", "tensorrt")
    done = rows.map_batches(
        _Worker,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),  # fewer where nodes are lost
        num_cpus=1,
        num_gpus=1 if on_gpu else None,
    )
    try:
        # Closed, its thread has ended: one that still ran when Ray is shut down would end this process without a word.
        with contextlib.closing(iter(done.iter_rows())) as answers:  # type: ignore[type-var]
            for row in answers:
                if row["error"]:
                    raise getattr(errors, row["error"])(row["said"])
                finished(row["chunk"])
                if stop.is_set():
                    return
    except RayError as error:
        raise _cause(error) from None


class _Worker:
    """Lives in one process of the cluster and screens the chunks that it is given.

    An error of ours is an answer, by name and text: of what is raised Ray passes on a text with its stack only. So
    ledger and model are opened with the first chunk.
    """

    def __init__(self, task: ChunkTask) -> None:
        self._task = task

    @functools.cached_property
    def _ledger(self) -> Ledger:
        return Ledger(self._task.folder, self._task.form)

    @functools.cached_property
    def _screener(self) -> ChunkScreener:
        task = self._task
        detector = Detector(task.model, device=task.device, threads=1, sha256=task.sha256, deadline=task.deadline)
        return ChunkScreener(detector, look=task.look, windows=task.windows, fps=task.fps)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            for number in map(int, batch["chunk"]):
                # A worker that died after its last write had finished this chunk.
                if self._ledger.account(number) is None:
                    screener = self._screener  # before the chunk is begun: a model that is refused is no death of it
                    self._ledger.finish(number, *self._screened(screener, number))
        except AsrError as error:
            return {**batch, "error": [type(error).__name__], "said": [f"node {socket.gethostname()}: {error}"]}
        return {**batch, "error": [""], "said": [""]}

    def _screened(self, screener: ChunkScreener, number: int) -> tuple[list[dict[str, Any]], Account]:
        inputs, attempt = self._ledger.chunk(number), self._ledger.begin(number)
        if attempt.deaths < _DEATHS:
            return screener.screen(inputs)
        records: list[dict[str, Any]] = []
        account = Account()
        for position, item in enumerate(inputs):
            if position in attempt.fatal:
                item = replace(item, kind="error", error=f"{item.name}: ended the worker that screened it")
            else:
                self._ledger.note(number, replace(attempt, at=position))
            more, added = screener.screen([item])
            records += more
            account += added
        return records, account


def _cause(error: BaseException) -> AsrError:
    """Return an error of Ray's as one line."""
    if missing := _MISSING.search(str(error)):
        return DependencyError(
            f"--ray: a node of the cluster cannot import {missing[1]}; install the same version of "
            "'asrnet-edge[cpu,ray]' on every node; the same command line goes on from what is complete"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return InferenceError(
        f"--ray: a chunk could not be screened ({reason}); the same command line goes on from what is complete"
    )
