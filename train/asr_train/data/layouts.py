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
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import CLASSES
from asr_runtime.errors import ConfigurationError, DatasetError, SourceError
from asr_runtime.media.image import read_image
from asr_train.data.label_file import labels_of
from asr_train.data.roles import SPLITS, Folder, Tree, read_tree

__all__ = ["LAYOUTS", "SPLITS", "DataFolder", "Sample", "content_key", "find_data", "picture_counts"]

LAYOUTS = ("folders", "generators")
_EXPECTED = {
    "folders": "train/0_real, train/1_fake, test",
    "generators": "<name>/train/ai, <name>/train/nature, .../val/...",
}
_CLASS_FOLDERS = {"folders": ("0_real", "1_fake"), "generators": ("nature", "ai")}
_HELD_OUT = 10  # one image in this many becomes validation where a folder has no `val`
_SHOWN = 20  # folders named in a message
_END = 4096  # bytes at either end of a file that its fingerprint covers


@dataclass(frozen=True)
class Sample:
    """One image file: label 0 = real, 1 = AI-generated; `source` is the folder, generator or photo set it is from."""

    path: Path
    label: int
    source: str

    def data(self) -> bytes:
        """Read the file.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def read(self) -> NDArray[np.uint8]:
        """Decode the file, as `asr_runtime.media.image.read_image`: uint8 (H, W, 3), BGR.

        Raises:
            InputError: it cannot be read or decoded.
        """
        return read_image(self.path)


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
        known = {s.source for name in SPLITS for s in getattr(self, name)}
        if unknown := sorted(left_out - known):
            raise DatasetError(f"{self.root}: no source {unknown[0]!r}; it has {', '.join(sorted(known))}")
        train, val, test = (tuple(s for s in getattr(self, name) if s.source not in left_out) for name in SPLITS)
        return replace(self, train=train, val=val, test=test)

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
            for sample in sorted(getattr(self, name), key=lambda s: s.path):
                path = sample.path.relative_to(self.root).as_posix()
                digest.update(f"{name} {path} {sample.label} {content_key(sample.path)}\n".encode())
        return digest.hexdigest()


def picture_counts(samples: Sequence[Sample]) -> Counter[tuple[int, str]]:
    """Count the pictures of each label and source; an index knows without looking at each."""
    known: Mapping[tuple[int, str], int] | None = getattr(samples, "counts", None)
    return Counter(known) if known is not None else Counter((s.label, s.source) for s in samples)


def _thinned(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    groups: dict[tuple[int, str], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.label, sample.source), []).append(sample)
    chosen: set[Path] = set()
    for group in groups.values():
        places = range(len(group)) if len(group) <= count else np.linspace(0, len(group) - 1, count).round().astype(int)
        chosen |= {group[place].path for place in places}
    return tuple(sample for sample in samples if sample.path in chosen)


def content_key(path: Path) -> str:
    """Return a text that changes with a file's content: its size, and a hash of its first and last 4,096 bytes.

    Of a file that cannot be read it says that; reading it as a picture says why.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            ends = file.read(_END)
            file.seek(max(0, size - _END))
            ends += file.read(_END)
    except OSError:
        return "unreadable"
    return f"{size} {hashlib.sha256(ends).hexdigest()}"


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
    used = [folder for folder in tree.folders if bool(folder.source) == (layout == "generators")]
    unused = [folder for folder in tree.folders if bool(folder.source) != (layout == "generators")]
    splits: dict[str, tuple[Sample, ...]] = {name: _samples(used, name) for name in SPLITS}
    notes: list[str] = []
    is_wrapped = len({sample.source for sample in splits["train"]}) == 1  # DIR/archive/train/real, as archives unpack
    if not splits["val"] and splits["train"] and (layout == "folders" or is_wrapped):
        splits["train"], splits["val"] = _hold_out(splits["train"])
        notes.append(f"no folder val: one training image in {_HELD_OUT} held out for validation, chosen by name")
    flat = [folder for folder in used if folder.label is None]
    if flat and not splits["test"]:
        images = sorted(image for folder in flat for image in folder.images)
        folder = root / flat[0].name
        labels, note = labels_of(images, folder, root / "label_test.csv", labels_by_position)
        splits["test"] = tuple(Sample(image, labels[image], "test") for image in images)
        notes.append(note)
        flat = []
    notes += _left_out(root, tree, [*unused, *flat])
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


def _samples(folders: Sequence[Folder], split: str) -> tuple[Sample, ...]:
    """Return the labelled images of a split, real ones of a source first."""
    own = [folder for folder in folders if folder.split == split and folder.label is not None]
    own.sort(key=lambda folder: (folder.source, folder.label if folder.label is not None else 0, folder.name))
    return tuple(
        Sample(image, folder.label, folder.source or folder.name)
        for folder in own
        if folder.label is not None
        for image in folder.images
    )


def _left_out(root: Path, tree: Tree, unused: Sequence[Folder]) -> list[str]:
    """Say what of the folder is not used."""
    notes = [f"folder {name}: read as {split}" for name, split in sorted(tree.renamed.items())]
    ignored = dict(tree.ignored)
    for folder in unused:
        ignored[folder.images[0].parent.relative_to(root).as_posix()] = len(folder.images)
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
        if not any(s.label == label for s in data.train):
            where = f"train/{name}" if data.layout == "folders" else f"<name>/train/{name}"
            raise DatasetError(
                f"{data.root}: no image of class {label} ({CLASSES[label]}): looked in {where}; found {_outline(tree)}"
            )


def _hold_out(samples: tuple[Sample, ...]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split off one image in `_HELD_OUT` of each class, at least one where there are two, chosen by name."""
    held_out: set[Path] = set()
    for label in (0, 1):
        paths = [s.path for s in samples if s.label == label]
        paths.sort(key=lambda path: hashlib.sha256(path.name.encode()).digest())
        held_out.update(paths[: min(max(1, len(paths) // _HELD_OUT), len(paths) - 1)])
    return tuple(s for s in samples if s.path not in held_out), tuple(s for s in samples if s.path in held_out)
