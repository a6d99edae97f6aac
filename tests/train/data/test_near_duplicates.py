"""Near duplicates: copies are recognised, other pictures are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from asr_runtime.media.image import read_image
from asr_train.data.layouts import Sample
from asr_train.data.near_duplicates import look_alike, near_duplicate_groups


def test_copies_at_another_quality_and_size_are_of_one_group(examples: Path, tmp_path: Path) -> None:
    originals = sorted((examples / "real").iterdir())
    copies = []
    for path in originals[:3]:
        image = read_image(path)
        small = tmp_path / f"{path.stem}-small.jpg"
        cv2.imwrite(str(small), cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        copies.append(small)
    groups = near_duplicate_groups([Sample(path, 0, "a") for path in (*originals, *copies)])
    assert len(set(groups[: len(originals)].tolist())) == len(originals)
    assert groups[len(originals) :].tolist() == groups[:3].tolist()


def test_groups_reach_over_several_steps() -> None:
    first = np.zeros(64, bool)
    second, third = first.copy(), first.copy()
    second[:4] = True
    third[:8] = True
    assert sorted(look_alike([first, None, second, third])) == [(0, 2), (2, 3)]
    third[8] = True
    assert sorted(look_alike([first, None, second, third])) == [(0, 2)]


def test_what_cannot_be_compared_is_like_nothing(tmp_path: Path) -> None:
    black, other, broken = tmp_path / "black.png", tmp_path / "other.png", tmp_path / "broken.png"
    for path in (black, other):
        cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))
    broken.write_bytes(b"no picture")
    samples = [Sample(path, 0, "a") for path in (black, other, broken, tmp_path / "missing.png")]
    assert len(set(near_duplicate_groups(samples).tolist())) == 4
