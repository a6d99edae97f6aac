"""What the folders below a data folder are: a class, a split, a source, or nothing that training knows.

Names are compared without regard to capital letters, plural endings and numbers before them: `REAL`, `reals`, `0_real`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from asr_runtime.media.image import IMAGE_SUFFIXES
from asr_runtime.sources.walk import entries_of
from asr_train.data.folder_index import FILES, by_path

__all__ = ["SPLITS", "Folder", "Tree", "read_tree"]

SPLITS = ("train", "val", "test")

_CLASS_OF = {"real": 0, "nature": 0, "fake": 1, "ai": 1}
_SPLIT_OF = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}


@dataclass(frozen=True)
class Folder:
    """A folder of images that training can use.

    Attributes:
        split: train, val or test.
        label: 0 or 1; None for the images of a test folder without classes.
        source: the folder above class and split; empty where there is none.
        name: of the class folder, as it is written.
        files: rows of `folder_index.FILES` without content, sorted by path.
    """

    split: str
    label: int | None
    source: str
    name: str
    files: pa.Table


@dataclass
class Tree:
    """A data folder as it is.

    Attributes:
        folders: what can be used, sorted by path.
        ignored: path below the root -> images in a folder that is no class, or of no split.
        unsupported: suffix -> files of other formats in folders that are used.
        renamed: folders read under another name: `valid` -> `val`.
        outline: folders at the first two levels, for messages.
    """

    folders: list[Folder] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    unsupported: Counter[str] = field(default_factory=Counter)
    renamed: dict[str, str] = field(default_factory=dict)
    outline: list[str] = field(default_factory=list)


def read_tree(root: Path) -> Tree:
    """Walk a data folder, symbolic links followed, and say what each folder of images is."""
    tree = Tree()
    groups: dict[tuple[str, ...], list[pa.Table]] = {}
    roles: dict[tuple[str, ...], tuple[str, int | None, str, str]] = {}
    for parts, names in _walk(root, (), frozenset()):
        if 0 < len(parts) <= 2:
            tree.outline.append("/".join(parts))
        suffixes = [os.path.splitext(name)[1].lower() for name in names]  # noqa: PTH122 (Path takes ten times as long)
        images = [name for name, suffix in zip(names, suffixes, strict=True) if suffix in IMAGE_SUFFIXES]
        key, role = _role(parts)
        if role is not None:
            tree.unsupported.update(
                suffix or name for name, suffix in zip(names, suffixes, strict=True) if suffix not in IMAGE_SUFFIXES
            )
        if not images:
            continue
        if role is None:
            path = "/".join(parts) or "."
            tree.ignored[path] = tree.ignored.get(path, 0) + len(images)
            continue
        roles[key] = role
        groups.setdefault(key, []).append(_files(root, "/".join(parts), images))
        for part in parts:
            if _plain(part) in _SPLIT_OF and part.casefold() != _SPLIT_OF[_plain(part)]:
                tree.renamed[part] = _SPLIT_OF[_plain(part)]
    for key in sorted(groups):
        split, label, source, name = roles[key]
        files = pa.concat_tables(groups.pop(key))
        tree.folders.append(Folder(split, label, source, name, files.take(by_path(files["path"]))))
    return tree


def _files(root: Path, folder: str, names: list[str]) -> pa.Table:
    """Return path, size and time of files of one folder, as rows of `folder_index.FILES`."""
    facts = np.full((len(names), 2), -1, np.int64)
    top = os.path.join(root, folder)  # noqa: PTH118
    for row, name in enumerate(names):
        with contextlib.suppress(OSError):
            status = os.stat(f"{top}/{name}")  # noqa: PTH116
            facts[row] = status.st_size, status.st_mtime_ns
    before = os.fsencode(f"{folder}/" if folder else "")
    paths = pa.array([before + os.fsencode(name) for name in names], pa.binary())
    nothing = pa.nulls(len(names), pa.binary(16))
    return pa.table([paths, pa.array(facts[:, 0]), pa.array(facts[:, 1]), nothing], schema=FILES)


def _walk(folder: Path, parts: tuple[str, ...], above: frozenset[str]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield every folder as its parts below the root, with the names of its files, by the rule of asr-screen.

    Links are followed, but a loop of them is not; what belongs to the operating system is left alone. Another link to a
    folder is read once more: the same photos may be two sources.

    Raises:
        OSError: a folder cannot be listed.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    files: list[str] = []
    folders: list[str] = []
    for entry in entries_of(str(folder)):
        if entry.kind == "closed":
            raise OSError(0, entry.reason, entry.path)
        if entry.kind != "system":
            (folders if entry.kind == "folder" else files).append(entry.path.rpartition("/")[2])
    yield parts, sorted(files)
    for name in sorted(folders):
        yield from _walk(folder / name, (*parts, name), above | {real})


def _role(parts: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, int | None, str, str] | None]:
    """Return which folder the images of a folder belong to, and its split, label, source and name; None if nothing.

    The class is the first class folder below the split, else the last one above it. So what stands below a class is a
    part of it (`1_fake/nature` are fakes), and a source may be called `real`.
    """
    splits = [i for i, part in enumerate(parts) if _plain(part) in _SPLIT_OF]
    if not splits:
        return parts, None
    at = splits[0]
    classes = [i for i, part in enumerate(parts) if _plain(part) in _CLASS_OF]
    below, above = [i for i in classes if i > at], [i for i in classes if i < at]
    split = _SPLIT_OF[_plain(parts[at])]
    if not classes:
        flat = split == "test" and at == 0
        return parts[:1], (split, None, "", parts[at]) if flat else None
    place = below[0] if below else above[-1]
    sources = [part for i, part in enumerate(parts[: max(at, place)]) if i not in (at, place)]
    key = parts[: max(at, place) + 1]
    return key, (split, _CLASS_OF[_plain(parts[place])], sources[0] if sources else "", parts[place])


def _plain(name: str) -> str:
    """Take capital letters, a number in front and a plural ending off a folder's name."""
    plain = re.sub(r"^[01][ _-]+", "", name.strip().casefold())
    return plain.removesuffix("s") if plain.removesuffix("s") in _CLASS_OF else plain
