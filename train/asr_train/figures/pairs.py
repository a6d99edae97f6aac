"""Content-matched pairs: how well a detector separates photos from their own resynthesis, where content says nothing.

A pair is a real and an AI-generated image whose files bear the same name in a source called `resynthesised_...`, as
`asr-resynthesise` makes them. Elsewhere equal names (`0001.png`) say nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_train.data.layouts import Sample
from asr_train.figures.bootstrap import RESAMPLES, concordance, resampled

__all__ = ["PAIRED_SOURCE", "content_matched_pairs", "pair_figures"]

PAIRED_SOURCE = "resynthesised_"
"""How the names of sources that hold pairs begin."""

_TAIL = 0.025  # 95% intervals


def content_matched_pairs(samples: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Find (photo, twin) among the samples of one split, in the order of the twins.

    Two photos of a source that bear one name (`a/1.png` and `b/1.png`) make no pair.
    """
    return [(samples[photo], samples[twin]) for photo, twin in _matches(samples)]


def pair_figures(
    samples: Sequence[Sample], scores: NDArray[np.floating[Any]], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Compute the figures of all pairs of every source that has any.

    Args:
        samples: n images, scored under the same re-encoding.
        scores: (n,), higher means AI-generated; logit margins rather than probabilities, which saturate.
        seed: of the bootstrap, which draws pairs, not images.

    Returns:
        source -> plain JSON data: `pairs` (how many), `auroc` (any twin against any photo of the source),
        `ranked_right` (share of twins that score above their own photo; ties half), `interval` (95% of both). With more
        than one source `all` pools the pairs: `auroc` then compares within sources only.
    """
    by_source: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for photo, twin in _matches(samples):
        by_source[samples[twin].source].append((photo, twin))
    figures = {name: _figures([matches], scores, seed) for name, matches in sorted(by_source.items())}
    if len(figures) > 1:
        figures["all"] = _figures(list(by_source.values()), scores, seed)
    return figures


def _matches(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Return (index of the photo, index of the twin)."""
    named: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if sample.source.startswith(PAIRED_SOURCE):
            named[sample.source, sample.path.stem, sample.label].append(index)
    matches = []
    for (source, stem, label), twins in named.items():
        photos = named.get((source, stem, 0), [])
        if label == 1 and len(twins) == len(photos) == 1:
            matches.append((photos[0], twins[0]))
    return matches


def _figures(
    matches: Sequence[Sequence[tuple[int, int]]], scores: NDArray[np.floating[Any]], seed: int
) -> dict[str, Any]:
    """Figures of the matches of one or more sources, which are the strata of the AUROC."""
    photo, twin = np.array([match for group in matches for match in group]).T  # each (P,)
    source = np.repeat(np.arange(len(matches)), [len(group) for group in matches])
    right = (scores[twin] > scores[photo]) + 0.5 * (scores[twin] == scores[photo])
    labels = np.repeat([0, 1], len(photo))
    both, strata = np.concatenate([scores[photo], scores[twin]]), np.tile(source, 2)
    drawn = resampled(source, RESAMPLES, np.random.default_rng(seed))
    aurocs = concordance(labels, both, strata, np.tile(drawn, 2))
    interval = {
        "auroc": np.quantile(aurocs, [_TAIL, 1 - _TAIL]).tolist(),
        "ranked_right": np.quantile(drawn @ right / len(right), [_TAIL, 1 - _TAIL]).tolist(),
    }
    auroc = float(concordance(labels, both, strata)[0])
    return {"pairs": len(right), "auroc": auroc, "ranked_right": float(right.mean()), "interval": interval}
