"""Data folders: which image has which label, comes from which source and belongs to which split.

`folders` (the published ASRNet's)          `generators` (Synapse-7's, GenImage's)
    DIR/train/0_real  DIR/train/1_fake          DIR/<name>/train/ai   DIR/<name>/train/nature
    DIR/val/...       (optional)                DIR/<name>/val/ai     DIR/<name>/val/nature
    DIR/test/...      + DIR/label_test.csv      any <name> may hold one class only

`shards` (WebDataset's tar files with an index): see `asr_train.data.shards`.

`asr_train.data.roles` knows the other names and orders in which these folders are published.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asr_runtime.contract import CLASSES
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_train.data.folder_index import FILES, FolderSamples, by_path, with_content
from asr_train.data.label_file import labels_of
from asr_train.data.roles import SPLITS, Folder, Tree, read_tree
from asr_train.data.sample import Sample

__all__ = ["LAYOUTS", "SPLITS", "DataFolder", "Sample", "chosen_from", "find_data", "grouped", "picture_counts"]

LAYOUTS = ("folders", "generators")
_EXPECTED = {
    "folders": "train/0_real, train/1_fake, test",
    "generators": "<name>/train/ai, <name>/train/nature, .../val/...",
}
_CLASS_FOLDERS = {"folders": ("0_real", "1_fake"), "generators": ("nature", "ai")}
_HELD_OUT = 10  # one image in this many becomes validation where a folder has no `val`
_SHOWN = 20  # folders named in a message


@dataclass(frozen=True)
class DataFolder:
    """A data folder, read. `notes` says what was decided while reading it, and what was left out."""

    root: Path
    layout: str
    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample]
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> Sequence[Sample]:
        """Samples of `train`, `val` or `test`.

        Raises:
            DatasetError: the folder has no such split.
        """
        samples: Sequence[Sample] = getattr(self, name)
        if not samples:
            raise DatasetError(f"{self.root}: layout {self.layout} found no images for the split {name!r}")
        return samples

    def without(self, sources: Iterable[str]) -> DataFolder:
        """Leave sources out of every split.

        Raises:
            DatasetError: a source that does not exist.
        """
        left_out = set(sources)
        if self.layout == "shards":
            self._refuse_part(bool(left_out), "--leave-out")
            return self
        known = {source for name in SPLITS for _, source in picture_counts(getattr(self, name))}
        if unknown := sorted(left_out - known):
            raise DatasetError(f"{self.root}: no source {unknown[0]!r}; it has {', '.join(sorted(known))}")
        if not left_out:
            return self

        def rest(samples: Sequence[Sample]) -> Sequence[Sample]:
            groups, group_of = grouped(samples)
            return chosen_from(samples, np.array([*(s not in left_out for _, s in groups), False])[group_of])

        return replace(self, train=rest(self.train), val=rest(self.val), test=rest(self.test))

    def thinned(self, train: int, val: int) -> DataFolder:
        """Keep at most so many training and validation images of each class of every source, spread over its files."""
        self._refuse_part(self.layout == "shards", "--per-source")
        return replace(self, train=_thinned(self.train, train), val=_thinned(self.val, val))

    def _refuse_part(self, asked: bool, option: str) -> None:
        if asked:
            raise ConfigurationError(f"{self.root}: {option} does not work on shards; use asr-shards --leave-out")

    def summary(self) -> dict[str, object]:
        """Counts per split and source, the fingerprint, and the notes."""
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for name in SPLITS:
            if samples := getattr(self, name):
                counted = picture_counts(samples)
                counts[name] = {
                    kind: {source: n for (label, source), n in sorted(counted.items()) if label == value}
                    for kind, value in (("real", 0), ("ai", 1))
                }
        return {"layout": self.layout, "images": counts, "fingerprint": self.fingerprint, "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """Say in words how many images of which class and source each split has, and what was left out."""
        lines = []
        for name in SPLITS:
            classes = []
            for label, kind in ((0, "real"), (1, "AI-generated")):
                counts = {s: n for (k, s), n in picture_counts(getattr(self, name)).items() if k == label}
                of = ", ".join(f"{source} {n}" for source, n in sorted(counts.items()))
                classes.append(f"{sum(counts.values())} {kind}" + (f" ({of})" if counts else ""))
            if getattr(self, name):
                lines.append(f"{name}: {', '.join(classes)}")
        return [*lines, *self.notes]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over split, path below the folder, label and content of every image: size, first and last bytes."""
        if (known := getattr(self.train, "fingerprint", None)) is not None:
            return str(known)
        digest = hashlib.sha256()
        for name in SPLITS:
            if isinstance(samples := getattr(self, name), FolderSamples):
                samples.digest(digest, name)
                continue
            for sample in sorted(samples, key=lambda s: s.path):
                path, content = sample.key(self.root)
                digest.update(os.fsencode(f"{name} {path} {sample.label} {content}\n"))
        return digest.hexdigest()


def picture_counts(samples: Sequence[Sample]) -> Counter[tuple[int, str]]:
    """Count the pictures of each label and source; an index knows without looking at each."""
    known: Mapping[tuple[int, str], int] | None = getattr(samples, "counts", None)
    return Counter(known) if known is not None else Counter((s.label, s.source) for s in samples)


def grouped(samples: Sequence[Sample]) -> tuple[Sequence[tuple[int, str]], NDArray[np.int32]]:
    """Return label and source of every group of pictures, and the group of each picture: int32 (n,)."""
    if isinstance(samples, FolderSamples):
        return samples.groups, samples.group_of
    groups: dict[tuple[int, str], int] = {}
    group_of = [groups.setdefault((s.label, s.source), len(groups)) for s in samples]
    return list(groups), np.array(group_of, np.int32)


def chosen_from(samples: Sequence[Sample], chosen: NDArray[np.bool_]) -> Sequence[Sample]:
    """Return the pictures for which bool (n,) is true."""
    if isinstance(samples, FolderSamples):
        return samples.where(chosen)
    return tuple(samples[row] for row in np.flatnonzero(chosen).tolist())


def _thinned(samples: Sequence[Sample], count: int) -> Sequence[Sample]:
    groups, group_of = grouped(samples)
    chosen = np.zeros(len(samples), bool)
    for group in range(len(groups)):
        rows = np.flatnonzero(group_of == group)
        places = np.arange(len(rows)) if len(rows) <= count else np.linspace(0, len(rows) - 1, count).round()
        chosen[rows[places.astype(np.int64)]] = True
    return chosen_from(samples, chosen)


def find_data(root: str | Path, layout: str | None = None, labels_by_position: bool = False) -> DataFolder:
    """Read a data folder.

    Args:
        root: the folder.
        layout: `folders` or `generators`; None finds out.
        labels_by_position: rows of label_test.csv stand in the order of the sorted files, whatever their image_id.

    Raises:
        DatasetError: no such folder, no known layout, a class without images, a label file that does not match.
    """
    from asr_train.data.shards import find_shards, is_sharded

    if is_sharded(root):
        return find_shards(root)
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected training data in the layout folders or generators")
    try:
        tree = read_tree(root)
    except OSError as error:
        raise DatasetError(f"{error.filename or root}: cannot be read ({error.strerror})") from None
    layout = layout or _recognise(root, tree)
    used = _known(root, [folder for folder in tree.folders if bool(folder.source) == (layout == "generators")])
    unused = [folder for folder in tree.folders if bool(folder.source) != (layout == "generators")]
    splits: dict[str, FolderSamples] = dict(zip(SPLITS, _samples(root, used), strict=True))
    notes: list[str] = []
    is_wrapped = (
        len({source for _, source in splits["train"].counts}) == 1
    )  # DIR/archive/train/real, as archives unpack
    if not splits["val"] and splits["train"] and (layout == "folders" or is_wrapped):
        splits["train"], splits["val"] = _hold_out(splits["train"])
        notes.append(f"no folder val: one training image in {_HELD_OUT} held out for validation, chosen by name")
    flat = [folder for folder in used if folder.label is None]
    if flat and not splits["test"]:
        files = pa.concat_tables([folder.files for folder in flat])
        files = files.take(by_path(files["path"]))
        images = [root / os.fsdecode(path) for path in files["path"].to_pylist()]
        folder = root / flat[0].name
        labels, note = labels_of(images, folder, root / "label_test.csv", labels_by_position)
        group_of = np.array([labels[image] for image in images], np.int32)
        splits["test"] = FolderSamples(root, [(0, "test"), (1, "test")], group_of, files)
        notes.append(note)
        flat = []
    notes += _left_out(tree, [*unused, *flat])
    data = DataFolder(root, layout, splits["train"], splits["val"], splits["test"], tuple(notes))
    if data.train:
        _check_both_classes(data, tree)
    if not (data.train or data.val or data.test):
        raise DatasetError(
            f"{root}: layout {layout}: no image in any split (looked for {_EXPECTED[layout]}; found {_outline(tree)})"
        )
    return data


def _recognise(root: Path, tree: Tree) -> str:
    plain = [folder for folder in tree.folders if not folder.source]
    if any(folder.label is not None for folder in plain) or (plain and len(plain) == len(tree.folders)):
        return "folders"
    if tree.folders:
        return "generators"
    raise DatasetError(
        f"{root}: no known layout with images; looked for {_EXPECTED['folders']} (folders) and "
        f"{_EXPECTED['generators']} (generators); found {_outline(tree)}"
    )


def _outline(tree: Tree) -> str:
    more = f" and {len(tree.outline) - _SHOWN} more" if len(tree.outline) > _SHOWN else ""
    return (", ".join(tree.outline[:_SHOWN]) + more) or "no folder"


def _known(root: Path, folders: Sequence[Folder]) -> list[Folder]:
    """Fill in the content of all folders' files, from the index or from the files."""
    files = with_content(root, pa.concat_tables([FILES.empty_table(), *(folder.files for folder in folders)]))
    starts = np.cumsum([0, *(len(folder.files) for folder in folders)]).tolist()
    return [
        replace(folder, files=files.slice(start, len(folder.files)))
        for folder, start in zip(folders, starts, strict=False)
    ]


def _samples(root: Path, folders: Sequence[Folder]) -> list[FolderSamples]:
    """Return the labelled images of every split, real ones of a source first."""
    ordered = [folder for folder in folders if folder.label is not None]
    ordered.sort(key=lambda folder: (folder.source, folder.label if folder.label is not None else 0, folder.name))
    names: dict[str, str] = {}  # `train/FAKE` and `val/Fake` are one source
    splits = []
    for name in SPLITS:
        own = [folder for folder in ordered if folder.split == name]
        files = pa.concat_tables([FILES.empty_table(), *(folder.files for folder in own)])
        sources = [folder.source or folder.name for folder in own]
        groups = [
            (folder.label or 0, names.setdefault(source.casefold(), source))
            for folder, source in zip(own, sources, strict=True)
        ]
        group_of = np.repeat(np.arange(len(own), dtype=np.int32), [len(folder.files) for folder in own])
        splits.append(FolderSamples(root, groups, group_of, files))
    return splits


def _left_out(tree: Tree, unused: Sequence[Folder]) -> list[str]:
    """Say what of the folder is not used."""
    notes = [f"folder {name}: read as {split}" for name, split in sorted(tree.renamed.items())]
    ignored = dict(tree.ignored)
    for folder in unused:
        first = os.fsdecode(folder.files["path"][0].as_py())
        ignored[first.rpartition("/")[0]] = len(folder.files)
    if ignored:
        shown = [f"{path} ({count} images)" for path, count in sorted(ignored.items())]
        more = f" and {len(shown) - _SHOWN} more folders" if len(shown) > _SHOWN else ""
        notes.append(f"ignored, neither a class nor of a split: {', '.join(shown[:_SHOWN])}{more}")
    if tree.unsupported:
        shown = [f"{suffix} {count}" for suffix, count in sorted(tree.unsupported.items())]
        notes.append(f"ignored, files of other formats in class folders: {', '.join(shown)}")
    return notes


def _check_both_classes(data: DataFolder, tree: Tree) -> None:
    for label, name in enumerate(_CLASS_FOLDERS[data.layout]):
        if not any(kind == label for kind, _ in picture_counts(data.train)):
            where = f"train/{name}" if data.layout == "folders" else f"<name>/train/{name}"
            raise DatasetError(
                f"{data.root}: no image of class {label} ({CLASSES[label]}): looked in {where}; found {_outline(tree)}"
            )


def _hold_out(samples: FolderSamples) -> tuple[FolderSamples, FolderSamples]:
    """Split off one image in `_HELD_OUT` of each class, at least one where there are two, chosen by name."""
    held_out = np.zeros(len(samples), bool)
    labels = np.array([label for label, _ in samples.groups])[samples.group_of]
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        names = (path.as_py().rpartition(b"/")[2] for path in samples.files["path"].take(rows))
        order = np.argsort(
            np.array([int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names], np.uint64),
            kind="stable",
        )
        held_out[rows[order[: min(max(1, len(rows) // _HELD_OUT), len(rows) - 1)]]] = True
    return samples.where(~held_out), samples.where(held_out)
