"""Finds pictures that occur twice: a detector may know such a picture by heart instead of recognising its traces."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_train.audit.file_facts import FileFacts
from asr_train.data.layouts import Sample
from asr_train.data.near_duplicates import look_alike

__all__ = ["duplicates"]

_EXAMPLES = 10
_LARGEST_GROUP = 100  # files of the same bytes that are paired with each other


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
    hashes = [fact.perceptual if fact is not None else None for fact in facts]
    near = {(a, b) for a, b in look_alike(hashes) if digests[a] != digests[b]}
    return {name: _counted(sorted(pairs), samples, splits, root) for name, pairs in (("exact", exact), ("near", near))}


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
