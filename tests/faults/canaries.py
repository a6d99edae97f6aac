"""A port and a file that no program may open, and how often one did."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

_IN_OPEN = 0x20
_SIZE_OF_EVENT = 16  # of a watched file, which has no name in it


class Canary:
    """Counts the connections to a port that no program may open, and answers each with the same bytes."""

    def __init__(self, answer: bytes = b"") -> None:
        self.hits: list[bytes] = []
        self._answer = answer
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.05)
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._count, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join(5)
        self._listener.close()

    def _count(self) -> None:
        while not self._over.is_set():
            with suppress(OSError), self._listener.accept()[0] as connection:
                self.hits.append(b"")
                connection.settimeout(0.5)
                self.hits[-1] = connection.recv(1000)
                connection.sendall(self._answer)


class FileCanary:
    """Counts how often a file is opened (inotify)."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._events, os.fsencode(self._path), _IN_OPEN) > 0, os.strerror(
            ctypes.get_errno()
        )
        return self

    def __exit__(self, *reason: object) -> None:
        os.close(self._events)

    def hits(self) -> int:
        """Return how often it was opened since the last call."""
        try:
            return len(os.read(self._events, 1 << 16)) // _SIZE_OF_EVENT
        except BlockingIOError:
            return 0
