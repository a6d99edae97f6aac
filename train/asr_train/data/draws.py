"""Which training pictures are drawn, how often and in which order: balanced over sources, from a folder or shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch.utils.data import Sampler

from asr_train.data.layouts import Sample, grouped, picture_counts
from asr_train.data.shards import ShardSamples

__all__ = ["MIXED_SHARDS", "BalancedSampler", "ShardOrder", "source_weights", "training_draws"]

MIXED_SHARDS = 4
"""Shards whose pictures are shuffled together."""


def training_draws(samples: Sequence[Sample], balance: str, length: int, seed: int) -> BalancedSampler | ShardOrder:
    """Return the order in which training pictures of a folder, or of shards, are drawn; see `BalancedSampler`."""
    order = ShardOrder if isinstance(samples, ShardSamples) else BalancedSampler
    return order(samples, balance, length, seed)  # type: ignore[arg-type]


def source_weights(counts: Mapping[tuple[int, str], int], balance: str) -> dict[tuple[int, str], float]:
    """Return the probability of one draw to be a given picture of each (label, source), as `BalancedSampler` draws."""
    power = {"sources": 0.5, "classes": 1.0}.get(balance)
    if power is None:
        return dict.fromkeys(counts, 1 / sum(counts.values()))
    total = {label: sum(n**power for (k, _), n in counts.items() if k == label) for label in (0, 1)}
    classes = sum(value > 0 for value in total.values())
    return {(k, s): n ** (power - 1) / total[k] / classes for (k, s), n in counts.items()}


class _Draws(Sampler[tuple[int, int]]):
    """Draws of an epoch; seed and epoch fix every one, so a resumed run goes on as it would have."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def __len__(self) -> int:
        """Draws per epoch."""
        return self.length

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws come next (Lightning calls this)."""
        self.epoch = epoch

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.epoch))


class BalancedSampler(_Draws):
    """Draw (index, draw) pairs with replacement, both classes equally often.

    Args:
        samples: the training split.
        balance: `sources`: within a class a source of n images is drawn in proportion to sqrt(n), between one share
            each (small sources would be learnt by heart) and their natural share. `classes`: within a class every
            image equally. `none`: every image equally, whatever its class.
        length: draws per epoch.
        seed: with the epoch it fixes every draw, so a resumed run goes on as it would have.
    """

    def __init__(self, samples: Sequence[Sample], balance: str, length: int, seed: int) -> None:
        super().__init__(length, seed)
        often = source_weights(picture_counts(samples), balance)
        groups, group_of = grouped(samples)
        weights = np.array([often.get(group, 0.0) for group in groups])[group_of]
        self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index, draw)."""
        rng = self._rng()
        indices = rng.choice(len(self.weights), self.length, p=self.weights)
        draws = rng.integers(0, 2**63 - 1, self.length)
        yield from zip(indices.tolist(), draws.tolist(), strict=True)


class ShardOrder(_Draws):
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
        super().__init__(length, seed)
        self.samples = samples
        # How often a picture of each source is drawn in one pass, on average; the mean over all pictures is 1.
        self.often = {key: weight * len(samples) for key, weight in source_weights(samples.counts, balance).items()}

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index, draw)."""
        rng = self._rng()
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
