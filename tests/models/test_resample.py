"""Resizing in blocks against the product with the whole matrix, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_models.resample import Axis, resample


def _matrix(axis: Axis) -> np.ndarray:
    """Weights (size, length) of one axis by the definition of the filter."""
    step = axis.length / axis.resized
    centre = (np.arange(axis.size) + axis.first + 0.5) * step
    source = np.arange(axis.length) + 0.5
    weight = np.maximum(0.0, 1.0 - np.abs(source - centre[:, None]) / max(step, 1.0))
    return weight / weight.sum(axis=1, keepdims=True)


def _difference(frame: np.ndarray, rows: Axis, columns: Axis) -> float:
    """Largest difference from the definition, of white."""
    pixels = resample(torch.from_numpy(frame)[None], rows, columns)[0].numpy()
    expected = np.einsum("ij,jkc,lk->ilc", _matrix(rows), frame.astype(np.float64), _matrix(columns), optimize=True)
    return float(np.abs(pixels - expected).max()) / 255


def _noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 40))
def test_blocks_equal_the_whole_matrix(data: st.DataObject, height: int, width: int, size: int) -> None:
    axes = []
    for length in (height, width):
        resized = data.draw(st.integers(size, 400))
        axes.append(Axis(length, resized, data.draw(st.integers(0, resized - size)), size))
    assert _difference(_noise(height, width), *axes) < 1e-6


@pytest.mark.parametrize(("height", "width"), [(1080, 1920), (2160, 3840), (97, 5000), (1, 1), (5, 700)])
def test_blocks_equal_the_whole_matrix_at_the_sizes_of_cameras(height: int, width: int) -> None:
    short = min(height, width)
    rows, columns = (
        Axis(length, length * 256 // short, (length * 256 // short - 224) // 2, 224) for length in (height, width)
    )
    assert _difference(_noise(height, width), rows, columns) < 1e-6


def test_only_the_pixels_below_the_triangles_are_multiplied() -> None:
    axis = Axis(3840, 455, 115, 224)  # a 4K frame, shorter side to 256
    assert axis.taps() < 3840 / 20
    source, weight = axis.blocks(axis.taps())
    assert source.shape == (14, axis.taps())
    assert weight.shape == (14, 16, axis.taps())
    torch.testing.assert_close(weight.sum(dim=2), torch.ones(14, 16))
