"""Measurements of folders, starts and frame sizes: real runs, few rounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_bench.folder import folder_speed, write_pictures
from asr_bench.frame_sizes import frame_sizes
from asr_bench.start import graph_costs, start_costs
from asr_runtime import read_image
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.builtin import builtin_path

MODEL = "asrnet-lite-tiny"


def test_a_folder_is_timed_beside_its_bound_and_plain_loops(examples: Path, tmp_path: Path) -> None:
    write_pictures(examples, tmp_path, 20, 500, 300)
    assert {read_image(path).shape for path in tmp_path.iterdir()} == {(300, 500, 3)}
    speed = folder_speed(tmp_path, MODEL, jobs=2, rounds=1)
    facts = speed.to_dict()
    assert (facts["pictures"], facts["width"], facts["height"]) == (20, 500, 300)
    assert facts["bound"] == pytest.approx(2 / (speed.decode[0] + speed.inference[0]))
    assert facts["of_bound"] == pytest.approx(speed.screen[0] / facts["bound"])
    assert 0 < facts["of_work"] < 1
    assert speed.process[0] < speed.screen[0]  # starting takes time
    assert len(speed.opencv) == len(speed.pillow) == 1


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no picture; expected a folder of JPEG"):
        write_pictures(tmp_path, tmp_path, 1, 384, 384)


def test_a_start_ends_with_the_first_record() -> None:
    (cost,) = start_costs((MODEL,), rounds=1)
    assert 0.05 < cost.first_verdict[0] < 60
    assert cost.peak_bytes[0] > 50e6


def test_a_graph_that_was_optimised_before_loads_with_less_work() -> None:
    (cost,) = graph_costs((MODEL,), rounds=5)
    assert min(cost.optimised) < min(cost.as_shipped)
    assert min(cost.hashing) > 0


def test_frame_sizes_of_a_model_that_crops_add_next_to_nothing() -> None:
    (costs,) = frame_sizes([builtin_path(MODEL)], rounds=3)
    assert list(costs.added_ms) == ["384x384", "1080x1920", "2160x3840"]
    assert costs.added_ms["384x384"] == 0.0
    assert all(len(samples) == 3 for samples in costs.seconds.values())
