"""The costs of an archive are products of measured times."""

from __future__ import annotations

import re

from asr_bench.cost import Costs, measure_costs


def test_tables_are_products_of_the_measured_steps() -> None:
    costs = Costs({"JPEG": 500_000}, {"JPEG": 0.01}, 0.004, {"small": {"centre": 0.03}})
    text = costs.to_markdown()
    # 100 million pictures at 40 ms are 1,111 core hours, and 50 TB.
    assert "| `small`, centre | JPEG | 25.0 | 1,111 | 46 | 50 TB | 25% |" in text
    # A camera of 25 frames a second: 0.1 cores to decode, and 0.03 a look.
    assert "| `small`, centre | 0.13 | 0.25 | 0.85 |" in text


def test_larger_pictures_and_more_windows_cost_more() -> None:
    costs = measure_costs(("asrnet-lite-tiny",))
    small, medium, large = costs.decode.values()
    assert 0 < small < medium < large
    assert costs.looks["asrnet-lite-tiny"]["whole"] > 3 * costs.looks["asrnet-lite-tiny"]["centre"]
    assert 0 < costs.decode_frame < large
    assert len(re.findall(r"^\| `asrnet-lite-tiny`", costs.to_markdown(), re.M)) == 2 + 6 + 2
