"""Files that appear whole or not at all: a process that is killed, or a full disk, leaves the file that was there."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from asr_runtime.errors import OutputError

__all__ = ["whole_file", "write_whole"]


@contextlib.contextmanager
def whole_file(path: Path, *, sync: bool = False, what: str = "") -> Iterator[Path]:
    """Give the path of a temporary file to write; it becomes `path` when the block ends, unless it raises.

    The folder of `path` is made. The temporary file lies beside `path`, is hidden, and has the same suffix.

    Args:
        path: replaced if it exists.
        sync: have the content on the disk first, so that a loss of power leaves no empty file.
        what: the content in words, for the message: `evidence map`.

    Raises:
        OutputError: an `OSError` in the block, or the file cannot be put in place.
    """
    part = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if sync:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: {what + ' ' if what else ''}cannot be written ({error.strerror}); expected a folder with space "
            "that may be written"
        ) from None


def write_whole(path: Path, content: bytes | str, *, sync: bool = False, what: str = "") -> None:
    """Write a file, text in UTF-8, as `whole_file` does.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path, sync=sync, what=what) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
