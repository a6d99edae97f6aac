"""ASRNet against an independent float64 implementation of the published arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from asr_models import ASRNet, OptionError
from asr_models.asrnet import ConstrainedConv2d

Array = NDArray[np.float64]


def _softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def _official_kernel(raw: Array) -> Array:
    """Published arithmetic: the surround's sum counts softplus(0) of the emptied centre."""
    centre = _softplus(raw[:, :, 2, 2])[..., None, None]
    emptied = raw.copy()
    emptied[:, :, 2, 2] = 0.0
    surround = _softplus(emptied)
    kernel = surround * (centre / (surround.sum((2, 3), keepdims=True) + 1e-6))
    kernel[:, :, 2, 2] = -centre[..., 0, 0]
    return kernel


def _conv(x: Array, weight: Array, stride: int) -> Array:
    k = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (k // 2, k // 2), (k // 2, k // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True)


def _bn(x: Array, state: dict[str, Array], name: str) -> Array:
    def at(key: str) -> Array:
        return state[f"{name}.{key}"][None, :, None, None]

    return (x - at("running_mean")) / np.sqrt(at("running_var") + 1e-5) * at("weight") + at("bias")


def _official_logits(x: Array, state: dict[str, Array]) -> Array:
    x = _conv(x, _official_kernel(state["res_extractor.0.weight_raw"]), 1)
    x = np.maximum(_bn(x, state, "res_extractor.1"), 0)
    for stage in ("stage1", "stage2", "stage3"):
        for conv, bn, stride in ((0, 1, 2), (3, 4, 1)):
            x = _bn(_conv(x, state[f"{stage}.{conv}.weight"], stride), state, f"{stage}.{bn}")
            x = np.where(x > 0, x, 0.2 * x)
    magnitude = np.abs(np.fft.rfft2(_bn(x, state, "spec_stat.bn"), norm="forward"))
    low = magnitude[:, :, :2, :2].mean(1).reshape(len(x), 4)
    rest = magnitude.copy()
    rest[:, :, :2, :2] = 0
    feature = np.concatenate([x.mean((2, 3)), low, rest.mean((2, 3))], axis=1)
    real = np.linalg.norm(feature[:, None] - state["classifier.real_center"][None], axis=2)
    fake = np.linalg.norm(feature[:, None] - state["classifier.fake_centers"][None], axis=2)
    return np.stack([-real[:, 0], -fake.min(1)], axis=1)


def _trained_looking(network: torch.nn.Module) -> torch.nn.Module:
    """Give BatchNorm statistics other values than their initial ones."""
    generator = torch.Generator().manual_seed(7)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2, generator=generator)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize(("height", "width"), [(192, 192), (64, 96), (57, 83), (33, 17)])
def test_official_front_end_gives_the_published_logits(height: int, width: int) -> None:
    torch.manual_seed(1)
    network = _trained_looking(ASRNet(dim=16, front_end="official"))
    x = torch.rand(2, 3, height, width)
    state = {k: v.double().numpy() for k, v in network.state_dict().items()}
    expected = _official_logits(x.double().numpy(), state)
    with torch.inference_mode():
        logits = network(x).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_parameter_count_and_names_are_the_published_ones() -> None:
    network = ASRNet(dim=64)
    assert sum(p.numel() for p in network.parameters()) == 1_169_080
    names = set(network.state_dict())
    assert {"res_extractor.0.weight_raw", "spec_stat.bn.running_var", "stage3.4.bias", "stage2.3.weight"} <= names
    assert network.state_dict()["classifier.real_center"].shape == (1, 516)
    assert network.state_dict()["classifier.fake_centers"].shape == (5, 516)
    assert not [
        n
        for n in names
        if n.split(".")[0] not in {"res_extractor", "stage1", "stage2", "stage3", "spec_stat", "classifier"}
    ]


def test_zero_sum_kernels_sum_to_zero_and_official_ones_do_not() -> None:
    torch.manual_seed(0)
    zero = ConstrainedConv2d(3, 32, 5, "zero-sum")
    assert zero.kernel().sum((2, 3)).abs().max() < 1e-6
    official = ConstrainedConv2d(3, 32, 5, "official")
    share = official.kernel().sum((2, 3)).abs() / official.kernel()[:, :, 2, 2].abs()
    assert 0.02 < share.mean() < 0.06  # about 4% of the mean is left in


def test_a_flat_image_leaves_no_residual() -> None:
    torch.manual_seed(0)
    layer = ConstrainedConv2d(3, 32, 5, "zero-sum")
    residual = layer(torch.full((1, 3, 16, 16), 0.7))[:, :, 2:-2, 2:-2]
    assert residual.abs().max() < 1e-6


def test_initial_kernels_differ_from_each_other() -> None:
    torch.manual_seed(0)

    def mean_cosine(kernels: torch.Tensor) -> float:
        unit = F.normalize(kernels.detach().flatten(1))
        return float(((unit @ unit.T).sum() - len(unit)) / (len(unit) * (len(unit) - 1)))

    assert mean_cosine(ConstrainedConv2d(3, 32, 5, "zero-sum").kernel()) < 0.7
    assert mean_cosine(ConstrainedConv2d(3, 32, 5, "official").kernel()) > 0.99


@pytest.mark.parametrize("side", [1, 2, 8, 9, 50])
def test_any_input_size_gives_finite_logits(side: int) -> None:
    network = ASRNet(dim=8).eval()
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, side, side + 3))
    assert logits.shape == (2, 2)
    assert torch.isfinite(logits).all()


def test_every_parameter_gets_a_gradient() -> None:
    torch.manual_seed(0)
    network = ASRNet(dim=8, prototypes=1)
    F.cross_entropy(network(torch.rand(4, 3, 40, 40)), torch.tensor([0, 1, 0, 1])).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()] == []


@pytest.mark.parametrize("options", [{"dim": 0}, {"prototypes": 0}, {"front_end": "other"}])
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        ASRNet(**options)  # type: ignore[arg-type]
