"""Pictures that occur twice: what a detector has learnt by heart it need not recognise by its traces."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_train.audit.file_facts import FileFacts
from asr_train.data.layouts import Sample

__all__ = ["NEAR", "duplicates"]

NEAR = 4
"""Largest number of bits (of 64) in which the perceptual hashes of near duplicates differ; unrelated pictures: 32."""

_EXAMPLES = 10
_LARGEST_GROUP = 100  # files of the same bytes that are paired with each other
_ROWS = 2000  # hashes compared at once with all others


def duplicates(
    samples: Sequence[Sample], splits: Sequence[str], facts: Sequence[FileFacts | None], root: Path
) -> dict[str, Any]:
    """Find files that are the same, and pictures that look the same.

    Args:
        samples: n files.
        splits: of each.
        facts: of each, with hashes; None where unreadable.
        root: paths are named relative to it.

    Returns:
        Plain JSON data. Per kind (`exact`: same bytes; `near`: perceptual hashes at most 4 bits apart, other bytes)
        the number of pairs `across_splits`, `across_classes` (contradicting labels, wherever they are) and `within`
        one class of one split, and `examples` of them, pairs of paths, the first two kinds first.
    """
    digests = [fact.sha256 if fact is not None else "" for fact in facts]
    groups: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        if digest:
            groups[digest].append(index)
    exact = {pair for group in groups.values() for pair in itertools.combinations(group[:_LARGEST_GROUP], 2)}
    near = {(a, b) for a, b in _look_alike(facts) if digests[a] != digests[b]}
    return {name: _counted(sorted(pairs), samples, splits, root) for name, pairs in (("exact", exact), ("near", near))}


def _look_alike(facts: Sequence[FileFacts | None]) -> set[tuple[int, int]]:
    rows = [i for i, fact in enumerate(facts) if fact is not None and fact.perceptual is not None]
    if not rows:
        return set()
    bits = np.stack([_bits(facts[i]) for i in rows])
    signs = bits.astype(np.float32) * 2 - 1  # (n, 64): the product of two rows is 64 - 2 * distance
    found: set[tuple[int, int]] = set()
    for start in range(0, len(rows), _ROWS):
        close = signs[start : start + _ROWS] @ signs.T >= 64 - 2 * NEAR
        for a, b in zip(*(place.tolist() for place in np.nonzero(close)), strict=True):
            if start + a < b:
                found.add((rows[start + a], rows[b]))
    return found


def _bits(fact: FileFacts | None) -> NDArray[np.bool_]:
    assert fact is not None
    assert fact.perceptual is not None
    return fact.perceptual


def _counted(
    pairs: Sequence[tuple[int, int]], samples: Sequence[Sample], splits: Sequence[str], root: Path
) -> dict[str, Any]:
    leaking = [(a, b) for a, b in pairs if splits[a] != splits[b]]
    contradicting = [(a, b) for a, b in pairs if samples[a].label != samples[b].label]
    within = [(a, b) for a, b in pairs if splits[a] == splits[b] and samples[a].label == samples[b].label]
    shown = list(dict.fromkeys([*leaking, *contradicting, *within]))[:_EXAMPLES]
    return {
        "across_splits": len(leaking),
        "across_classes": len(contradicting),
        "within": len(within),
        "examples": [[samples[i].path.relative_to(root).as_posix() for i in pair] for pair in shown],
    }
