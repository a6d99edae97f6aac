"""The layout `shards`: pictures in tar files (WebDataset's format) with one Parquet index, read as they are needed.

    DIR/train-000000.tar  DIR/train-000001.tar ...  DIR/val-000000.tar ...  DIR/index.parquet

DIR is a folder or anything that fsspec opens (`https://...`, `s3://...`). Of the index the rows of a few tar files are
in memory at a time, of a tar file a few blocks, however many pictures there are. `asr-shards` writes the layout.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import fsspec
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from asr_runtime.errors import DatasetError, DependencyError, SourceError
from asr_runtime.media.image import decode_image
from asr_train.data.layouts import DataFolder, Sample
from asr_train.data.roles import SPLITS

__all__ = ["INDEX", "ShardSample", "ShardSamples", "find_shards", "is_sharded", "location"]

INDEX = "index.parquet"
_SCHEMA = 1
_COLUMNS = ("key", "offset", "size", "crc32", "label", "source", "path")
_OPEN = 8  # tar files, and tables of their rows, that a process has at hand
_BLOCK, _BLOCKS = 2**22, 4  # of a remote file: bytes per request, and blocks in the cache
_TRIES = 3
_SHOWN = 5

log = logging.getLogger("asr_train")


@dataclass(frozen=True, kw_only=True)
class ShardSample(Sample):
    """A picture inside a tar file: `path` is the tar file's and the picture's name, and names it in messages."""

    shard: str
    offset: int
    size: int
    crc32: int
    name: str

    def key(self, root: Path) -> tuple[str, str]:
        """Return the path that the picture had in the folder that was sharded, and its size and checksum."""
        return self.name, self.content

    def data(self) -> bytes:
        """Read the file.

        Raises:
            SourceError: the tar file cannot be read, or something else stands where the index says.
        """
        content = _FILES.read(self.shard, self.offset, self.size)
        if zlib.crc32(content) != self.crc32:
            raise SourceError(
                f"{self.path}: the tar file and its row of {INDEX} do not agree; fetch both again, or write them anew "
                "with asr-shards"
            )
        return content

    def read(self) -> NDArray[np.uint8]:
        """Decode it, as `Sample.read`."""
        return decode_image(self.data(), str(self.path))


class ShardSamples(Sequence[Sample]):
    """The pictures of one split, shard after shard. A row of the index is read when its picture is asked for.

    Args:
        index: of the folder.
        split: train, val or test.
    """

    def __init__(self, index: ShardIndex, split: str) -> None:
        self.parquet, self.groups = index, index.groups[split]
        self.starts = np.cumsum([0, *(index.rows[group] for group in self.groups)])
        self.counts: Mapping[tuple[int, str], int] = index.counts[split]
        """(label, source) -> pictures."""

    def __len__(self) -> int:
        """Count the pictures."""
        return int(self.starts[-1])

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Sample]: ...
    def __getitem__(self, position: int | slice) -> Sample | Sequence[Sample]:
        """Read the row of a picture, or of several.

        Raises:
            SourceError: the row is damaged.
        """
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        place = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.parquet.sample(self.groups[place], position - int(self.starts[place]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what the index says of all splits, tar files and their content."""
        return self.parquet.fingerprint

    def labels_and_sources(self, place: int) -> tuple[Sequence[int], Sequence[str]]:
        """Return label and source of every picture of the split's shard `place`; label -1 for a damaged row."""
        try:
            table = self.parquet.table(self.groups[place])
        except Exception:  # whatever damaged bytes lead to; each row says so when it is asked for
            return [-1] * self.parquet.rows[self.groups[place]], [""] * self.parquet.rows[self.groups[place]]
        return table["label"], table["source"]


class ShardIndex:
    """An index.parquet: one row group for each tar file; what is known of all together stands in its metadata."""

    def __init__(self, root: str) -> None:
        self.root = root
        try:
            self._file, size = _open_index(root)
            facts = json.loads(self._file.schema_arrow.metadata[b"asr.shards"])
            if facts["schema"] != _SCHEMA:
                raise DatasetError(f"{root}/{INDEX}: schema {facts['schema']}, expected {_SCHEMA}; write it anew")
            self.shards: list[str] = [shard["name"] for shard in facts["shards"]]
            self.rows: list[int] = [shard["pictures"] for shard in facts["shards"]]
            self.groups = {s: [i for i, x in enumerate(facts["shards"]) if x["split"] == s] for s in SPLITS}
            self.counts = {s: {(k, n): c for k, n, c in facts["counts"].get(s, [])} for s in SPLITS}
            known = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
            if known != self.rows:
                raise ValueError("its row groups are not its tar files")
        except DatasetError:
            raise
        except Exception as error:  # whatever damaged bytes lead to
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise DatasetError(f"{root}/{INDEX}: damaged ({why}); write it anew with asr-shards") from None
        self.fingerprint = hashlib.sha256(json.dumps([facts, size]).encode()).hexdigest()
        self._process = os.getpid()
        self._tables: OrderedDict[int, dict[str, Any]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open file: another process opens its own."""
        return {**vars(self), "_file": None, "_process": -1, "_tables": OrderedDict()}

    def table(self, group: int) -> dict[str, Any]:
        """Return the columns of one tar file's rows."""
        if self._process != os.getpid():
            self._file, self._process = _open_index(self.root)[0], os.getpid()
        if group not in self._tables:
            read = self._file.read_row_group(group, columns=list(_COLUMNS))
            columns = {name: read[name].combine_chunks() for name in _COLUMNS}
            for name in ("offset", "size", "crc32", "label"):
                columns[name] = columns[name].fill_null(-1).to_numpy(zero_copy_only=False)
            columns["source"] = columns["source"].to_pylist()
            self._tables[group] = columns
            while len(self._tables) > _OPEN:
                self._tables.popitem(last=False)
        self._tables.move_to_end(group)
        return self._tables[group]

    def sample(self, group: int, row: int) -> ShardSample:
        """Return a picture.

        Raises:
            SourceError: its row is damaged.
        """
        shard = self.shards[group]
        try:
            table = self.table(group)
            facts = {name: int(table[name][row]) for name in ("offset", "size", "crc32", "label")}
            key, name, source = table["key"][row].as_py(), table["path"][row].as_py(), table["source"][row]
            if None in (key, name, source) or facts["label"] not in (0, 1) or min(facts.values()) < 0:
                raise ValueError(f"{facts}")
        except Exception as error:  # whatever damaged bytes lead to
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise SourceError(f"{self.root}/{INDEX}: row {row} of {shard} is damaged ({why}); left out") from None
        path = Path(self.root) / shard / key
        place = {name: facts[name] for name in ("offset", "size", "crc32")}
        content = f"{facts['size']} {facts['crc32']}"
        return ShardSample(path, facts["label"], source, content, shard=f"{self.root}/{shard}", name=name, **place)


class _OpenFiles:
    """Tar files that a process has open, the last used ones."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def read(self, place: str, offset: int, size: int) -> bytes:
        """Return bytes of a file, tried again where the connection fails."""
        for tried in range(_TRIES):
            try:
                file = self._file(place)
                file.seek(offset)
                content: bytes = file.read(size)
                break
            except Exception as error:  # of whatever store
                self._files.pop((os.getpid(), place), None)
                if "://" not in place or tried == _TRIES - 1:
                    raise SourceError(f"{place}: cannot be read ({_why(error)}); its pictures are left out") from None
                time.sleep(2**tried)
        if len(content) != size:
            raise SourceError(f"{place}: cut short; copy or fetch it again")
        return content

    def _file(self, place: str) -> Any:
        key = os.getpid(), place
        if key not in self._files:
            remote = {"cache_type": "blockcache", "cache_options": {"maxblocks": _BLOCKS}, "block_size": _BLOCK}
            self._files[key] = fsspec.open(place, "rb", **(remote if "://" in place else {})).open()
            while len(self._files) > _OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(key)
        return self._files[key]


_FILES = _OpenFiles()


def location(root: str | Path) -> str:
    """Return a folder or URL as text. A URL that was taken for a path has lost one of its slashes."""
    return re.sub(r"^([a-z][a-z0-9+.-]+):/(?!/)", r"\1://", str(root)).rstrip("/")


def is_sharded(root: str | Path) -> bool:
    """Return whether a data folder is one of shards: a URL, or a folder with an index."""
    return "://" in location(root) or (Path(root) / INDEX).is_file()


def find_shards(root: str | Path) -> DataFolder:
    """Read the index of a folder of shards.

    Raises:
        DatasetError: the index cannot be read, or a class has no training picture.
        DependencyError: a package for the URL's protocol is missing.
    """
    place = location(root)
    index = ShardIndex(place)
    notes = []
    if "://" not in place and (missing := [s for s in index.shards if not (Path(place) / s).is_file()]):
        lost = sum(rows for shard, rows in zip(index.shards, index.rows, strict=True) if shard in set(missing))
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        notes.append(f"missing: {', '.join(missing[:_SHOWN])}{more}, with {lost} pictures, which are left out")
        log.warning("%s: %s", place, notes[0])
    splits = {split: ShardSamples(index, split) for split in SPLITS}
    for label in (0, 1):
        if splits["train"] and not any(k == label for k, _ in splits["train"].counts):
            raise DatasetError(f"{place}: no training image of class {label} in {INDEX}")
    return DataFolder(Path(root), "shards", splits["train"], splits["val"], splits["test"], tuple(notes))


def _open_index(root: str) -> tuple[pq.ParquetFile, int]:
    try:
        if "://" not in root:
            path = Path(root) / INDEX
            return pq.ParquetFile(path, memory_map=True), path.stat().st_size
        with fsspec.open(f"{root}/{INDEX}", "rb") as file:
            content = file.read()
        return pq.ParquetFile(io.BytesIO(content)), len(content)
    except ImportError as error:
        raise DependencyError(f"{root}: {_why(error)}") from None
    except Exception as error:  # of whatever store, or of damaged bytes
        raise DatasetError(
            f"{root}/{INDEX}: cannot be read ({_why(error)}); expected what asr-shards wrote; check the address"
        ) from None


def _why(error: BaseException) -> str:
    """Return the reason in one line; fsspec's "not found" hides that a server cannot be reached."""
    known = error.__cause__ or error
    if isinstance(known, FileNotFoundError):
        return "no such file"
    return (str(known).splitlines() or [""])[0] or type(known).__name__
