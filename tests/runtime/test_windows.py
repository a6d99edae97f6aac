"""The grid of windows that an evidence map is made of."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_runtime.windows import window_grid


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), size=st.integers(1, 400), most=st.integers(1, 60))
def test_windows_lie_inside_and_reach_the_edges(height: int, width: int, size: int, most: int) -> None:
    grid = window_grid(height, width, size, most)
    rows, columns = sorted({row for row, _ in grid}), sorted({column for _, column in grid})
    assert len(grid) == len(set(grid)) == len(rows) * len(columns) <= most
    for places, side in ((rows, height), (columns, width)):
        room = max(0, side - size)
        if len(places) == 1:
            assert places == [room // 2]
        else:
            assert (places[0], places[-1]) == (0, room)
    assert grid == sorted(grid)


@pytest.mark.parametrize(("height", "width"), [(224, 224), (384, 600), (1000, 800), (2000, 100)])
def test_neighbours_are_half_a_window_apart_where_there_are_enough(height: int, width: int) -> None:
    grid = window_grid(height, width, 224, 500)
    for axis in (0, 1):
        places = sorted({corner[axis] for corner in grid})
        assert all(after - before <= 112 for before, after in itertools.pairwise(places))


def test_with_few_windows_both_spacings_are_widened_alike() -> None:
    grid = window_grid(2160, 3840, 224, 49)
    rows, columns = sorted({row for row, _ in grid}), sorted({column for _, column in grid})
    assert 40 <= len(grid) <= 49
    assert 0.6 < (rows[1] - rows[0]) / (columns[1] - columns[0]) < 1.6
