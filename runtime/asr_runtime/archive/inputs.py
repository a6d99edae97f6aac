"""SOURCE arguments -> the inputs of an archive: local files, object stores, and tables of paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from asr_runtime.errors import ConfigurationError
from asr_runtime.media.formats import kind_by_suffix
from asr_runtime.redact import redact
from asr_runtime.sources.expand import Expansion, Source, Unreadable
from asr_runtime.sources.live import is_live
from asr_runtime.sources.remote import remote_file

__all__ = ["ArchiveInput", "Inputs", "is_in_a_store"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_COLUMN = "path"


@dataclass(frozen=True, slots=True)
class ArchiveInput:
    """One input of an archive.

    Attributes:
        name: what records call it: the path as it was given, or the URL without its password.
        place: what a worker opens: an absolute path, or the URL; empty for an error.
        kind: `image` or `video`; `error` for what leads to nothing.
        error: why it leads to nothing; empty otherwise.
    """

    name: str
    place: str
    kind: Literal["image", "video", "error"]
    error: str = ""


def is_in_a_store(name: str) -> bool:
    """Return whether a name is a URL that fsspec opens (`s3://`, `gs://`, `memory://`), not a path or a web address."""
    match = _SCHEME.match(name)
    return match is not None and match[1].lower() not in ("http", "https", "rtsp", "rtsps")


class Inputs:
    """Lists the inputs of an archive lazily, in a fixed order, each local file once.

    Args:
        arguments: what `asr-screen` takes for files (see `sources.expand`); `https://HOST/photo.jpg`; a URL of an
            object store, with all below it; and `X.parquet`, whose column `path` names one input a row.

    Raises:
        ConfigurationError: no argument, or a live source among them.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        if not arguments:
            raise ConfigurationError("no source: give images, folders, patterns, videos, URLs, or tables of paths")
        for argument in arguments:
            if is_live(argument) and not is_in_a_store(argument) and remote_file(argument) is None:
                raise ConfigurationError(f"{redact(argument)}: --ray screens files; screen live sources without it")
        self._arguments = arguments
        self._expansion = Expansion(())
        self._ignored = 0

    @property
    def ignored(self) -> int:
        """Files, and folders of the operating system, that were left out so far."""
        return self._expansion.ignored + self._ignored

    def __iter__(self) -> Iterator[ArchiveInput]:
        """Yield the inputs."""
        for argument in self._arguments:
            if argument.lower().endswith(".parquet"):
                yield from self._from_table(argument)
            else:
                yield from self._from_argument(argument)

    def _from_argument(self, argument: str) -> Iterator[ArchiveInput]:
        if is_in_a_store(argument):
            yield from self._from_store(argument)
        elif (remote := remote_file(argument)) is not None:
            yield ArchiveInput(remote.name, remote.url, remote.kind)
        else:
            yield from map(_input, self._expansion.from_argument(argument))

    def _from_table(self, path: str) -> Iterator[ArchiveInput]:
        from fsspec.core import url_to_fs
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        shown = redact(path)
        try:
            store, place = url_to_fs(path)
            with store.open(place, "rb") as file, ParquetFile(file) as table:
                if _COLUMN not in table.schema_arrow.names:
                    columns = ", ".join(table.schema_arrow.names)
                    raise ConfigurationError(f"{shown}: expected a column {_COLUMN}; it has {columns}")
                for batch in table.iter_batches(columns=[_COLUMN]):
                    for row, name in enumerate(batch.column(0).to_pylist()):
                        yield from self._from_row(shown, row, name)
        except (OSError, ImportError, ValueError, ArrowException) as error:
            raise ConfigurationError(f"{shown}: not a table that can be read ({_reason(error)})") from None

    def _from_row(self, table: str, row: int, name: object) -> Iterator[ArchiveInput]:
        if not isinstance(name, str) or not name:
            yield _failed(f"{table}, row {row}", "holds no path")
        elif is_in_a_store(name):
            yield ArchiveInput(redact(name), name, kind_by_suffix(name, None) or "image")
        elif (remote := remote_file(name)) is not None:
            yield ArchiveInput(remote.name, remote.url, remote.kind)
        else:
            yield from map(_input, self._expansion.from_list(name))

    def _from_store(self, url: str) -> Iterator[ArchiveInput]:
        from fsspec.core import url_to_fs

        shown = redact(url)
        try:
            store, place = url_to_fs(url)
            is_folder = store.isdir(place)
            paths = sorted(store.find(place)) if is_folder else [place]
            names = [str(store.unstrip_protocol(path)) for path in paths]
        except Exception as error:  # every store raises its own errors
            yield _failed(shown, f"cannot be listed ({_reason(error)})")
            return
        is_empty = True
        for name in names:
            kind = kind_by_suffix(name, None) or (None if is_folder else "image")
            if kind is None:
                self._ignored += 1
            else:
                is_empty = False
                yield ArchiveInput(redact(name), name, kind)
        if is_empty:
            yield _failed(shown, f"holds no image and no video ({len(names)} other files)")


def _input(item: Source | Unreadable) -> ArchiveInput:
    if isinstance(item, Unreadable):
        return ArchiveInput(item.name, "", "error", str(item.error))
    if item.data is not None or item.path is not None:
        return _failed(item.name, "bytes cannot be sent to a cluster; give a list of paths")
    return ArchiveInput(item.name, os.path.abspath(item.name), item.kind)  # noqa: PTH100 (Path would drop "./")


def _failed(name: str, reason: str) -> ArchiveInput:
    return ArchiveInput(name, "", "error", f"{name}: {reason}")


def _reason(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__
