"""Batches against pictures one after another, in processor time."""

from __future__ import annotations

import numpy as np

from asr_bench.batching import processor_seconds
from asr_runtime import Detector


def test_every_size_scores_all_pictures_in_every_round() -> None:
    detector = Detector("asrnet-lite-tiny", device="cpu", threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (4, 160, 160, 3), np.uint8)
    seconds = processor_seconds(detector, frames, (1, 4), rounds=2)
    assert {size: len(values) for size, values in seconds.items()} == {1: 2, 4: 2}
    assert all(0.0005 < value < 1 for values in seconds.values() for value in values)
