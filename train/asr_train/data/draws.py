"""In which order the pictures of shards are seen: balanced over sources, shuffled, with a few shards open at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from asr_train.data.batches import BalancedSampler, source_weights
from asr_train.data.layouts import Sample
from asr_train.data.shards import ShardSamples

__all__ = ["MIXED_SHARDS", "ShardOrder", "training_draws"]

MIXED_SHARDS = 4
"""Shards whose pictures are shuffled together."""


def training_draws(samples: Sequence[Sample], balance: str, length: int, seed: int) -> BalancedSampler | ShardOrder:
    """Return the order in which training pictures of a folder, or of shards, are drawn; see `BalancedSampler`."""
    order = ShardOrder if isinstance(samples, ShardSamples) else BalancedSampler
    return order(samples, balance, length, seed)  # type: ignore[arg-type]


class ShardOrder(Sampler[tuple[int, int]]):
    """Draw (index, draw) pairs as `BalancedSampler` does, but shard after shard.

    In every pass the shards come in another order, and the pictures of each `MIXED_SHARDS` of them in one random order.
    `asr-shards` deals pictures to shards at random, so each of these groups is a random sample of all. A picture is
    drawn as often as its source's share asks for: one of a small source more than once, one of a large source not in
    every pass.

    Args:
        samples: the training split.
        balance: as for `BalancedSampler`.
        length: draws per epoch.
        seed: with the epoch it fixes every draw.
    """

    def __init__(self, samples: ShardSamples, balance: str, length: int, seed: int) -> None:
        self.samples, self.length, self.seed, self.epoch = samples, length, seed, 0
        # How often a picture of each source is drawn in one pass, on average; the mean over all pictures is 1.
        self.often = {key: weight * len(samples) for key, weight in source_weights(samples.counts, balance).items()}

    def __len__(self) -> int:
        """Draws per epoch."""
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws come next (Lightning calls this)."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index, draw)."""
        rng = np.random.default_rng((self.seed, self.epoch))
        left = self.length
        while left:
            shards = rng.permutation(len(self.samples.groups))
            for start in range(0, len(shards), MIXED_SHARDS):
                indices = self._group(shards[start : start + MIXED_SHARDS].tolist(), rng)[:left]
                left -= len(indices)
                yield from zip(indices.tolist(), rng.integers(0, 2**63 - 1, len(indices)).tolist(), strict=True)
                if not left:
                    return

    def _group(self, places: list[int], rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        parts = []
        for place in places:
            labels, sources = self.samples.labels_and_sources(place)
            often = np.array([self.often.get((int(k), s), 0.0) for k, s in zip(labels, sources, strict=True)])
            times = np.floor(often + rng.random(len(often))).astype(np.int64)
            parts.append(np.repeat(np.arange(len(often)) + self.samples.starts[place], times))
        return rng.permutation(np.concatenate(parts))
