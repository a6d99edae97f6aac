"""Freed memory: kept for the next picture, or returned to the system. With other C libraries than glibc, neither."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

__all__ = ["KEPT_BYTES", "give_back_freed_memory", "keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, from malloc.h
KEPT_BYTES = 1 << 28
"""Freed memory that is kept at the end of a heap; between blocks in use there may be more."""


def give_back_freed_memory() -> None:
    """Return freed memory to the system.

    Loading a model parses a file, folds its constants and re-orders its weights. glibc would keep what that frees,
    which is more than the weights themselves, and inference would come on top.
    """
    with _glibc() as libc:
        libc.malloc_trim(0)


def keep_freed_memory() -> None:
    """Keep freed memory for the next picture from now on, up to `KEPT_BYTES`.

    glibc returns blocks of more than 32 MiB, a picture of 11 megapixels, to the system at once. The system clears every
    page of the next one before it is used, which takes as long as two thirds of decoding the JPEG.
    """
    with _glibc() as libc:
        libc.mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


@contextlib.contextmanager
def _glibc() -> Iterator[ctypes.CDLL]:
    """Give the C library of this process; where it is not glibc, its functions are missing, which ends the block."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        yield ctypes.CDLL(None)
