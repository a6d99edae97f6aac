"""All features of a store, and pictures in memory as blocks, for tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from asr_train.fitting.features import FeatureStore
from asr_train.fitting.ridge import Pictures

__all__ = ["views_of", "windows_of", "with_features"]


def windows_of(store: FeatureStore) -> NDArray[np.float32]:
    """Return the windows of all pictures: (n, W, F)."""
    parts = dict[int, NDArray[np.float32]]()
    for places, features in store.windows(np.arange(len(store))):
        parts |= dict(zip(places.tolist(), features, strict=True))
    return np.stack([parts[row] for row in range(len(store))])


def views_of(store: FeatureStore, windows: int = 1) -> NDArray[np.float32]:
    """Return the augmented views of the training pictures: (V, n_train, F)."""
    everything = list(store.pictures.blocks(np.ones(store.trained, bool)))
    assert np.concatenate([rows for rows, _ in everything]).tolist() == list(range(store.trained))
    return np.concatenate([features for _, features in everything], axis=1)[:-windows]


def with_features(
    views: NDArray[np.float32], labels: NDArray[np.int_], sources: NDArray[np.str_], block: int = 7
) -> Pictures:
    """Return pictures in memory, in blocks of a few."""
    groups = sorted({(int(k), str(s)) for k, s in zip(labels, sources, strict=True)})
    group_of = np.array([groups.index((int(k), str(s))) for k, s in zip(labels, sources, strict=True)], np.int32)

    def blocks(chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
        for start in range(0, len(labels), block):
            rows = np.arange(start, min(start + block, len(labels)))
            if (own := rows[chosen[rows]]).size:
                yield own, views[:, own]

    return Pictures(groups, group_of, views.shape[2], blocks)
