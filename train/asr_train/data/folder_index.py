"""The index of a data folder: path, size, time and content of every image, in a Parquet file in the user's cache.

A folder is walked and its files' sizes and times are compared with the index; only new and changed files are opened. In
memory a picture takes its path and 40 bytes, as columns, and becomes a `Sample` when it is asked for.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from asr_runtime.caches import cache_folder
from asr_runtime.errors import OutputError
from asr_runtime.whole_file import whole_file
from asr_train.data.sample import Sample, content_of_ends

__all__ = ["FILES", "FolderSamples", "by_path", "index_place", "with_content"]

log = logging.getLogger("asr_train")

FILES = pa.schema({"path": pa.binary(), "size": pa.int64(), "mtime": pa.int64(), "content": pa.binary(16)})
"""Path below the data folder (as the file system has it), bytes, nanoseconds, and a hash of the first and last bytes.
Size and time are -1, and the content is zero, of a file that cannot be read."""

_VERSION = "index-1"
_SETTLED = 2_000_000_000  # ns after which a file's time says whether it changed
_UNREADABLE = bytes(16)


class FolderSamples(Sequence[Sample]):
    """Pictures of a data folder, as columns.

    Args:
        root: the data folder.
        groups: label and source of every group of pictures.
        group_of: int32 (n,), the group of each picture.
        files: n rows of `FILES`.
    """

    def __init__(
        self, root: Path, groups: Sequence[tuple[int, str]], group_of: NDArray[np.int32], files: pa.Table
    ) -> None:
        self.root, self.groups, self.group_of, self.files = root, tuple(groups), group_of, files.combine_chunks()

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.group_of)

    @overload
    def __getitem__(self, position: int) -> Sample: ...
    @overload
    def __getitem__(self, position: slice) -> Sequence[Sample]: ...
    def __getitem__(self, position: int | slice) -> Sample | Sequence[Sample]:
        """Return a picture, or some."""
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        position %= len(self)
        label, source = self.groups[self.group_of[position]]
        paths, contents, sizes = self._columns
        content = _text(sizes[position].as_py(), contents[position].as_py())
        return Sample(self.root / os.fsdecode(paths[position].as_py()), label, source, content)

    @cached_property
    def counts(self) -> Mapping[tuple[int, str], int]:
        """(label, source) -> pictures."""
        counted = np.bincount(self.group_of, minlength=len(self.groups)).tolist()
        total: Counter[tuple[int, str]] = Counter()
        for group, count in zip(self.groups, counted, strict=True):
            if count:
                total[group] += count
        return total

    def where(self, chosen: NDArray[np.bool_]) -> FolderSamples:
        """Return the pictures for which bool (n,) is true."""
        return FolderSamples(self.root, self.groups, self.group_of[chosen], self.files.filter(pa.array(chosen)))

    def digest(self, digest: hashlib._Hash, split: str) -> None:
        """Add split, path, label and content of every picture to a hash, sorted by path."""
        paths, contents, sizes = self._columns
        for row in by_path(self.files["path"]).tolist():
            content = _text(sizes[row].as_py(), contents[row].as_py())
            label = self.groups[self.group_of[row]][0]
            digest.update(b"%s %s %d %s\n" % (split.encode(), paths[row].as_py(), label, content.encode()))

    @cached_property
    def _columns(self) -> tuple[pa.Array, pa.Array, pa.Array]:
        return tuple(_joined(self.files[name]) for name in ("path", "content", "size"))

    def __getstate__(self) -> dict[str, object]:
        """Pickle without what is computed again."""
        return {name: value for name, value in vars(self).items() if name not in ("_columns", "counts")}


def by_path(paths: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the order of paths (n,) folder by folder, as `Path` sorts them."""
    return np.asarray(pc.sort_indices(pc.replace_substring(paths, b"/", b"\0")).to_numpy(), np.int64)


def with_content(root: Path, files: pa.Table) -> pa.Table:
    """Fill in the content of files, from the index where size and time are the same; writes the index again.

    Args:
        root: the data folder.
        files: n rows of `FILES` without content, in any order.
    """
    place = index_place(_VERSION, root)
    known = _read(place)
    contents, is_new = _known_contents(files, known)
    paths = _joined(files["path"])
    for row in np.flatnonzero(is_new).tolist():
        content = content_of_ends(root / os.fsdecode(paths[row].as_py()))
        contents[row] = np.frombuffer(content or _UNREADABLE, np.uint8)
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(files), [None, pa.py_buffer(contents)])
    files = files.set_column(3, FILES.field("content"), column)
    if is_new.any() or known is None or len(known) != len(files):
        _write(place, files)
    return files


def _known_contents(files: pa.Table, known: pa.Table | None) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return contents (n, 16), and which of them the index does not have."""
    if known is None or not len(known):
        return np.zeros((len(files), 16), np.uint8), np.ones(len(files), bool)
    place = pc.index_in(files["path"], value_set=_joined(known["path"]))
    before = known.take(pc.fill_null(place, 0))
    same = pc.and_(pc.equal(files["size"], before["size"]), pc.equal(files["mtime"], before["mtime"]))
    same = pc.and_(pc.and_(same, pc.is_valid(place)), pc.greater_equal(files["mtime"], 0))
    column = _joined(before["content"])
    contents = np.frombuffer(column.buffers()[1], np.uint8, 16 * len(files), 16 * column.offset).reshape(-1, 16)
    return contents.copy(), ~np.asarray(same.to_numpy(), bool)


def _read(place: Path | None) -> pa.Table | None:
    """Read the index; damaged rows, or all of a damaged file, are left out, with one line."""
    if place is None or not place.is_file():
        return None
    try:
        known = pq.read_table(place, memory_map=True).select(FILES.names).cast(FILES)
        good = pc.and_(pc.greater_equal(known["size"], 0), pc.is_valid(known["content"]))
        good = pc.and_(pc.fill_null(good, False), pc.and_(pc.is_valid(known["path"]), pc.is_valid(known["mtime"])))
        whole = known.filter(good)
    except Exception as error:  # whatever damaged bytes lead to
        why = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("%s: damaged (%s); all files of the data folder are looked at again", place, why)
        return None
    if len(whole) < len(known):
        log.warning("%s: %d damaged rows; their files are looked at again", place, len(known) - len(whole))
    return whole


def _write(place: Path | None, files: pa.Table) -> None:
    """Write the index without files that have just changed: their time says nothing yet, they are read again."""
    if place is None:
        return
    settled = pc.less(files["mtime"], time.time_ns() - _SETTLED)
    settled = pc.and_(settled, pc.not_equal(files["content"], pa.scalar(_UNREADABLE, pa.binary(16))))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as part:
            pq.write_table(files.filter(settled), part)
    except (OSError, OutputError):
        log.debug("%s: not written; the data folder is read in full next time", place)


def index_place(name: str, root: Path) -> Path | None:
    """Return the file of the cache `name` for a data folder; None where the user has no home."""
    try:
        key = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        return cache_folder(name) / f"{key}.parquet"
    except RuntimeError:
        return None


def _text(size: int, content: bytes) -> str:
    return "unreadable" if content == _UNREADABLE else f"{size} {content.hex()}"


def _joined(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
