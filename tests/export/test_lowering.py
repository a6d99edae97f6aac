"""Fourier transforms as matrix products give what numpy's FFT gives in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_export.lowering import MatmulFullMagnitude, MatmulHalfMagnitude, lower
from asr_models import Deployed, InputTransform, create_model
from asr_models.spectrum import FullMagnitude, HalfMagnitude

_SIDE = st.integers(1, 40)


def _input(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 100 + width).normal(size=(2, 3, height, width)).astype(np.float32)


@settings(max_examples=60)
@given(height=_SIDE, width=_SIDE)
def test_half_magnitude_at_any_size(height: int, width: int) -> None:
    x = _input(height, width)
    expected = np.abs(np.fft.rfft2(x.astype(np.float64), norm="forward"))
    magnitude = MatmulHalfMagnitude(height, width)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(magnitude, expected, atol=1e-6)


@settings(max_examples=60)
@given(height=_SIDE, width=_SIDE, shift=st.booleans())
def test_full_magnitude_at_any_size(height: int, width: int, shift: bool) -> None:
    x = _input(height, width)
    z = np.fft.fft2(x.astype(np.float64))
    expected = np.abs(np.fft.fftshift(z, axes=(2, 3)) if shift else z)
    magnitude = MatmulFullMagnitude(height, width, shift=shift)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(magnitude, expected, atol=1e-4)


def test_log_spectrum_of_a_224_px_image_is_as_exact_as_torch() -> None:
    x = torch.rand(1, 3, 224, 224)
    exact = np.log1p(np.abs(np.fft.fft2(x.double().numpy())))
    error = np.abs(torch.log1p(MatmulFullMagnitude(224, 224, shift=False)(x)).numpy() - exact).max()
    assert error < 1e-3  # onnxruntime's own DFT: 1.7e-2


@pytest.mark.parametrize(
    ("name", "options"),
    [("asrnet", {"dim": 8}), ("fft-resnet18", {}), ("fft-resnet18", {"spectrum": "patch"})],
)
def test_lowering_replaces_every_transform_and_keeps_the_result(name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    deployed = Deployed(InputTransform("crop", 96), create_model(name, **options)).eval()
    lowered = lower(deployed)
    assert not [m for m in lowered.modules() if isinstance(m, HalfMagnitude | FullMagnitude)]
    assert [m for m in deployed.modules() if isinstance(m, HalfMagnitude | FullMagnitude)]  # the original is untouched
    frames = torch.randint(0, 256, (2, 120, 100, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for a, b in zip(deployed(frames), lowered(frames), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)
