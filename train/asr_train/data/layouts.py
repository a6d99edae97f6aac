"""Data folders: which image has which label, comes from which source and belongs to which split.

`folders` (the published ASRNet's)          `generators` (Synapse-7's, GenImage's)
    DIR/train/0_real  DIR/train/1_fake          DIR/<name>/train/ai   DIR/<name>/train/nature
    DIR/val/...       (optional)                DIR/<name>/val/ai     DIR/<name>/val/nature
    DIR/test/...      + DIR/label_test.csv      any <name> may hold one class only
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.contract import CLASSES
from asr_runtime.errors import DatasetError
from asr_runtime.media.image import IMAGE_SUFFIXES

__all__ = ["LAYOUTS", "SPLITS", "DataFolder", "Sample", "find_data"]

SPLITS = ("train", "val", "test")
LAYOUTS = ("folders", "generators")
_CLASS_FOLDERS = {"0_real": 0, "1_fake": 1}
_GENERATOR_FOLDERS = {"nature": 0, "ai": 1}
_HELD_OUT = 10  # one image in this many becomes validation where a folder has no `val`


@dataclass(frozen=True)
class Sample:
    """One image file: label 0 = real, 1 = AI-generated; `source` is the folder, generator or photo set it is from."""

    path: Path
    label: int
    source: str


@dataclass(frozen=True)
class DataFolder:
    """A data folder, read. `notes` says what was decided while reading it."""

    root: Path
    layout: str
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of `train`, `val` or `test`.

        Raises:
            DatasetError: the folder has no such split.
        """
        samples: tuple[Sample, ...] = getattr(self, name)
        if not samples:
            raise DatasetError(f"{self.root}: layout {self.layout} found no images for the split {name!r}")
        return samples

    def without(self, sources: Iterable[str]) -> DataFolder:
        """Leave sources out of every split.

        Raises:
            DatasetError: a source that does not exist.
        """
        left_out = set(sources)
        known = {s.source for name in SPLITS for s in getattr(self, name)}
        if unknown := sorted(left_out - known):
            raise DatasetError(f"{self.root}: no source {unknown[0]!r}; it has {', '.join(sorted(known))}")
        train, val, test = ([s for s in getattr(self, name) if s.source not in left_out] for name in SPLITS)
        return DataFolder(self.root, self.layout, tuple(train), tuple(val), tuple(test), self.notes)

    def summary(self) -> dict[str, object]:
        """Counts per split and source, and a fingerprint: SHA-256 over relative paths and file sizes."""
        digest = hashlib.sha256()
        counts: dict[str, dict[str, dict[str, int]]] = {}
        for name in SPLITS:
            samples = getattr(self, name)
            for sample in sorted(samples, key=lambda s: s.path):
                size = sample.path.stat().st_size
                digest.update(f"{name} {sample.path.relative_to(self.root)} {size} {sample.label}\n".encode())
            if samples:
                counted = Counter((s.label, s.source) for s in samples)
                counts[name] = {
                    kind: {source: n for (label, source), n in sorted(counted.items()) if label == value}
                    for kind, value in (("real", 0), ("ai", 1))
                }
        return {"layout": self.layout, "images": counts, "fingerprint": digest.hexdigest(), "notes": list(self.notes)}


def find_data(root: str | Path, layout: str | None = None) -> DataFolder:
    """Read a data folder.

    Args:
        root: the folder.
        layout: `folders` or `generators`; None finds out.

    Raises:
        DatasetError: no such folder, no known layout, a class without images, a label file that does not match.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder; expected training data in the layout folders or generators")
    if layout is None:
        layout = _recognise(root)
    data = _read_folders(root) if layout == "folders" else _read_generators(root)
    if data.train:
        _check_both_classes(root, layout, data.train)
    if not (data.train or data.val or data.test):
        raise DatasetError(f"{root}: layout {layout}: no image in any split (looked for {_looked_for(layout)})")
    return data


def _recognise(root: Path) -> str:
    if any((root / split / name).is_dir() for split in SPLITS for name in _CLASS_FOLDERS) or (root / "test").is_dir():
        return "folders"
    if any(True for _ in _generator_folders(root)):
        return "generators"
    raise DatasetError(
        f"{root}: no known layout; looked for {_looked_for('folders')} (folders) and {_looked_for('generators')} "
        "(generators)"
    )


def _looked_for(layout: str) -> str:
    return (
        "train/0_real, train/1_fake, test"
        if layout == "folders"
        else "<name>/train/ai, <name>/train/nature, .../val/..."
    )


def _check_both_classes(root: Path, layout: str, samples: tuple[Sample, ...]) -> None:
    names = _CLASS_FOLDERS if layout == "folders" else _GENERATOR_FOLDERS
    for name, label in names.items():
        if not any(s.label == label for s in samples):
            where = f"train/{name}" if layout == "folders" else f"<name>/train/{name}"
            raise DatasetError(f"{root}: no image of class {label} ({CLASSES[label]}): looked in {where}")


def _images(folder: Path) -> list[Path]:
    """Image files below a folder, sorted; symbolic links to folders are not followed."""
    found: list[Path] = []
    for parent, _, names in os.walk(folder):
        found += [Path(parent, n) for n in names if Path(n).suffix.lower() in IMAGE_SUFFIXES and n[0] != "."]
    return sorted(found)


def _read_folders(root: Path) -> DataFolder:
    notes: list[str] = []
    splits: dict[str, tuple[Sample, ...]] = {}
    for split in SPLITS:
        splits[split] = tuple(
            Sample(path, label, name) for name, label in _CLASS_FOLDERS.items() for path in _images(root / split / name)
        )
    if not splits["val"] and splits["train"]:
        splits["train"], splits["val"] = _hold_out(splits["train"])
        notes.append(f"no folder val: one training image in {_HELD_OUT} held out for validation, chosen by name")
    if not splits["test"] and (root / "test").is_dir():
        splits["test"], note = _read_labelled(root / "test", root / "label_test.csv")
        notes.append(note)
    return DataFolder(root, "folders", splits["train"], splits["val"], splits["test"], tuple(notes))


def _hold_out(samples: tuple[Sample, ...]) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split off one image in `_HELD_OUT` of each class (at least one), chosen by name."""
    held: set[Path] = set()
    for label in (0, 1):
        paths = [s.path for s in samples if s.label == label]
        paths.sort(key=lambda path: hashlib.sha256(path.name.encode()).digest())
        held.update(paths[: max(1, len(paths) // _HELD_OUT)])
    return tuple(s for s in samples if s.path not in held), tuple(s for s in samples if s.path in held)


def _read_labelled(folder: Path, labels: Path) -> tuple[tuple[Sample, ...], str]:
    """Read a flat folder whose labels stand in a CSV file with the columns image_id and label."""
    images = _images(folder)
    if not labels.is_file():
        raise DatasetError(f"{folder}: holds images without class folders; expected their labels in {labels}")
    with labels.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"image_id", "label"} <= set(reader.fieldnames or ()):
            raise DatasetError(f"{labels}: columns {reader.fieldnames}, expected image_id,label")
        rows = list(reader)
    for line, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DatasetError(f"{labels}: line {line}: label {row['label']!r}, expected 0 (real) or 1 (AI-generated)")
    by_name = {row["image_id"]: int(row["label"]) for row in rows}
    names = [i for i in images if _id_of(i, folder, by_name) is not None]
    if names:
        if len(names) < len(images) or len(by_name) > len(images):
            odd = next((i.name for i in images if i not in set(names)), None)
            what = f"{odd} has no row" if odd else f"{len(by_name)} rows for {len(images)} images"
            raise DatasetError(f"{labels}: does not match {folder}: {what}")
        found = ((i, by_name[_id_of(i, folder, by_name) or ""]) for i in images)
        note = "label_test.csv: rows matched to files by image_id"
    elif len(rows) == len(images):
        found = ((i, int(row["label"])) for i, row in zip(images, rows, strict=True))
        note = "label_test.csv: image_id names no file, rows matched to the sorted file list by position"
    else:
        raise DatasetError(
            f"{labels}: {len(rows)} rows, {len(images)} images in {folder}, and no image_id names a file"
        )
    return tuple(Sample(path, label, "test") for path, label in found), note


def _id_of(image: Path, folder: Path, ids: dict[str, int]) -> str | None:
    """Which of the spellings of a file (relative path, name, stem) is an image_id."""
    spellings = (image.relative_to(folder).as_posix(), image.name, image.stem)
    return next((s for s in spellings if s in ids), None)


def _generator_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield (folder of one class, source name) in sorted order."""
    for source in sorted(p for p in root.iterdir() if p.is_dir()):
        for split in SPLITS:
            for name in _GENERATOR_FOLDERS:
                folder = source / split / name
                if folder.is_dir():
                    yield folder, source.name


def _read_generators(root: Path) -> DataFolder:
    splits: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for folder, source in _generator_folders(root):
        label = _GENERATOR_FOLDERS[folder.name]
        splits[folder.parent.name] += [Sample(path, label, source) for path in _images(folder)]
    return DataFolder(root, "generators", tuple(splits["train"]), tuple(splits["val"]), tuple(splits["test"]))
