"""Folders that are watched: each file once, when it is complete, also over a restart.

watchfiles says what changed. A file is complete when no process has it open for writing, where the kernel can tell
(Linux grants a read lease on it), and when its size and time have not changed for `SETTLE` seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.errors import ConfigurationError, DependencyError, OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["SETTLE", "Journal", "Version", "Watch", "version_of"]

SETTLE = 0.5
"""Seconds without a change after which a file may be complete."""
_STEP = 100  # milliseconds between looks at files that are not complete yet
_RESCAN = 60.0  # seconds between looks at the whole folder: network file systems report no changes


@dataclass(frozen=True, slots=True)
class Version:
    """What a file looks like from outside; a file with another version has changed.

    Attributes:
        size: in bytes.
        mtime_ns: time of the last change, nanoseconds.
    """

    size: int
    mtime_ns: int


def version_of(path: str) -> Version | None:
    """Return the version of a regular file; None for anything else, or nothing."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    is_file = Path(path).is_file()
    return Version(status.st_size, status.st_mtime_ns) if is_file else None


class Journal:
    """Which files were screened, in which version; with a path, stored on disk as one JSON line per file.

    Args:
        path: made if it does not exist; None: nothing is stored.

    Raises:
        ConfigurationError: the file is no journal.
        OutputError: it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, Version] = {}
        self._path = path
        self._file = None
        if path is None:
            return
        try:
            self._file = Path(path).open("ab+", buffering=0)  # noqa: SIM115 (closed by `close`)
            self._file.seek(0)
            text = self._file.read()
        except OSError as error:
            raise self._failure(error) from None
        whole = text[: text.rfind(b"\n") + 1]
        try:
            for line in whole.splitlines():
                entry = json.loads(line)
                self._done[str(entry["path"])] = Version(int(entry["size"]), int(entry["mtime_ns"]))
        except (ValueError, KeyError, TypeError):
            self._file.close()
            raise ConfigurationError(f"state {path}: not a state file of asr-screen; name a new file") from None
        if len(whole) < len(text):  # a kill cut the last line short
            self._file.truncate(len(whole))

    def is_done(self, path: str, version: Version) -> bool:
        """Whether the file was screened in this version."""
        with self._lock:
            return self._done.get(_key(path)) == version

    def add(self, path: str) -> None:
        """Note that a file was screened, in the version that it has now; a file that is gone is not noted.

        Raises:
            OutputError: the journal cannot be written.
        """
        version = version_of(path)
        if version is None or self.is_done(path, version):
            return
        with self._lock:
            self._done[_key(path)] = version
            if self._file is not None:
                entry = {"path": _key(path), "size": version.size, "mtime_ns": version.mtime_ns}
                try:
                    self._file.write(json.dumps(entry).encode() + b"\n")
                except OSError as error:
                    raise self._failure(error) from None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _failure(self, error: OSError) -> OutputError:
        return OutputError(f"state {self._path}: cannot be written ({error.strerror}); expected a file with space")


class Watch:
    """Gives the complete files of some folders, now and as they come.

    Args:
        folders: watched with all below them.
        journal: files that it has in their present version are passed over.

    Raises:
        ConfigurationError: one is no folder.
        DependencyError: watchfiles is not installed.
    """

    def __init__(self, folders: Sequence[str], journal: Journal) -> None:
        for folder in folders:
            if not Path(folder).is_dir():
                raise ConfigurationError(f"watch {folder}: no such folder; expected a folder that exists")
        try:
            import watchfiles  # noqa: F401 (the device does without, unless it watches)
        except ImportError:
            raise DependencyError("watch: needs the package watchfiles: pip install 'asrnet-edge[live]'") from None
        self._folders, self._journal = list(folders), journal
        self._changing: dict[str, tuple[Version, float]] = {}  # path -> version, and since when it has been that
        self._given: dict[str, Version] = {}  # given out, perhaps not in the journal yet

    def files(self, leave: threading.Event) -> Iterator[str]:
        """Yield paths until `leave` is set; sorted among those that become complete together."""
        import watchfiles

        scanned = -_RESCAN
        # The first step comes after the watch began, so nothing falls between the first scan and the first change.
        for changes in watchfiles.watch(
            *self._folders,
            watch_filter=None,
            debounce=_STEP,
            step=50,
            stop_event=leave,
            rust_timeout=_STEP,
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            if time.monotonic() - scanned > _RESCAN:
                scanned = time.monotonic()
                for folder in self._folders:
                    self._scan(folder)
            for _, path in changes:
                if Path(path).is_dir():
                    self._scan(path)  # moved here whole
                else:
                    self._notice(path)
            for path in self._complete():
                if leave.is_set():
                    return
                yield path

    def _scan(self, folder: str) -> None:
        for directory, below, names in os.walk(folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            for name in names:
                self._notice(os.path.join(directory, name))  # noqa: PTH118 (as watchfiles spells it)

    def _notice(self, path: str) -> None:
        """Look at a file again; hidden ones are what copying programs name a copy that is not complete."""
        version = version_of(path)
        is_hidden = any(part.startswith(".") for part in self._below(path))
        if version is None or is_hidden or self._is_known(path, version):
            self._changing.pop(path, None)
        elif path not in self._changing or self._changing[path][0] != version:
            self._changing[path] = version, time.monotonic()

    def _is_known(self, path: str, version: Version) -> bool:
        return self._given.get(path) == version or self._journal.is_done(path, version)

    def _below(self, path: str) -> tuple[str, ...]:
        for folder in self._folders:
            with contextlib.suppress(ValueError):
                return Path(path).absolute().relative_to(Path(folder).absolute()).parts
        return ()

    def _complete(self) -> list[str]:
        for path in list(self._changing):
            self._notice(path)
        now = time.monotonic()
        settled = (path for path, (_, since) in self._changing.items() if now - since >= SETTLE)
        complete = sorted(path for path in settled if not _is_being_written(path))
        for path in complete:
            self._given[path] = self._changing.pop(path)[0]
        return complete


def _key(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 (a name need not be text)


def _is_being_written(path: str) -> bool:
    """Ask Linux for a read lease: it is refused while any process has the file open for writing."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False  # gone or unreadable: screening it reports that
    try:
        # Who opens the file while the lease stands sends a signal: one that is ignored, instead of SIGIO, which kills.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False  # another user's file, or a file system without leases: the time without a change decides
    finally:
        os.close(file)
    return False
