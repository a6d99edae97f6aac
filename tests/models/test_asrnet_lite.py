"""ASRNet-Lite: its statistics are the two ends of a spectrum, its trunk is the packaged one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_models import ASRNetLite, OptionError, WeightsError
from asr_models.asrnet_lite import _correlations
from asr_models.efficientnet_lite import EfficientNetLite0, pretrained_state


def test_the_statistics_are_zero_frequency_and_energy_of_all_others() -> None:
    network = ASRNetLite(blocks=2).eval()
    network.load_pretrained("imagenet")
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    with torch.inference_mode():
        maps = network.trunk(x)[0].double()  # (N, 16, 20, 20)
        features = network.features(x).double()
    spectrum = torch.fft.fft2(maps, norm="forward")
    low = spectrum[:, :, 0, 0].real
    energy = spectrum.abs().square().sum((2, 3)) - low.square()
    assert torch.allclose(features[:, :16], low, atol=1e-5)
    assert torch.allclose(features[:, 16:32], energy.sqrt(), atol=1e-4)


def test_rectified_responses_are_what_the_projection_reads() -> None:
    network = ASRNetLite(blocks=3, activations=(1, 1), scales=(1, 2)).eval()
    network.load_pretrained("imagenet")
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    read: list[torch.Tensor] = []
    for block in network.trunk._blocks:
        block._project_conv.register_forward_pre_hook(lambda _, given: read.append(given[0]))  # type: ignore[union-attr, arg-type]
    with torch.inference_mode():
        features = network.features(x)
    assert features.shape == (2, network.features_out)
    assert network.features_out == 2 * (2 * (16 + 24 + 24) + 96)
    before = 2 * (16 + 24)  # mean and deviation of the first two blocks' maps
    assert torch.equal(features[:, before : before + 96], read[1].mean(dim=(2, 3)))
    assert read[1].min() == 0


def test_correlations_are_those_of_every_two_maps() -> None:
    network = ASRNetLite(blocks=2, correlations=1).eval()
    network.load_pretrained("imagenet")
    x = torch.rand(2, 3, 40, 40) * 2 - 1
    with torch.inference_mode():
        maps = network.trunk(x)[0].double().flatten(2)  # (N, 16, 400)
        features = network.features(x)[:, 32 : 32 + 120]
    assert network.features_out == 2 * (16 + 24) + 120
    expected = torch.corrcoef(maps[0])[*torch.triu_indices(16, 16, 1)]
    varying = maps[0].var(dim=1)  # those that vary little are drawn towards 0
    trusted = torch.minimum(*varying[torch.triu_indices(16, 16, 1)]) > 0.1
    assert trusted.sum() > 20
    assert torch.allclose(features[0].double()[trusted], expected[trusted], atol=0.02)
    assert features.abs().max() <= 1
    assert "pairs_of_16" not in network.state_dict()


def test_of_maps_that_do_not_vary_there_is_no_correlation() -> None:
    rounding = torch.randn(1, 16, 20, 20) * 1e-6
    pairs = torch.arange(256)
    correlations = _correlations(rounding, rounding.square().mean(dim=(2, 3)), pairs)
    assert correlations.abs().max() < 1e-8


def test_folding_keeps_the_trunk_and_leaves_only_halves() -> None:
    folded = ASRNetLite(blocks=15).eval()
    folded.load_pretrained("imagenet")
    packaged = EfficientNetLite0(15).eval()
    packaged.load_state_dict({k: v for k, v in pretrained_state().items() if k in packaged.state_dict()})
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.inference_mode():
        for maps, expected in zip(folded.trunk(x), packaged(x), strict=True):
            assert (maps - expected).abs().max() < 0.1 * expected.std()
    kernels = [p for name, p in folded.trunk.named_parameters() if p.ndim == 4]
    assert len(kernels) == 1 + 2 + 14 * 3
    assert all(torch.equal(p, p.half().float()) for p in kernels)


@pytest.mark.parametrize("side", [33, 48, 57])
def test_any_side_works_and_padding_is_tensorflows(side: int) -> None:
    network = EfficientNetLite0(4).eval()
    with torch.inference_mode():
        shapes = [tuple(m.shape[2:]) for m in network(torch.zeros(1, 3, side, side))]
    half = -(-side // 2)
    quarter, eighth = -(-half // 2), -(-half // 4)
    assert shapes == [(half, half), (quarter, quarter), (quarter, quarter), (eighth, eighth)]


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 0},
        {"blocks": 17},
        {"scales": []},
        {"scales": [5]},
        {"blocks": 2, "activations": [1, 2]},
        {"blocks": 2, "correlations": 3},
        {"correlations": -1},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=r"asrnet-lite: (blocks|scales|activations|correlations)"):
        ASRNetLite(**options)  # type: ignore[arg-type]


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    network = ASRNetLite(blocks=1)
    with pytest.raises(WeightsError, match="no such weights file"):
        network.load_pretrained(str(tmp_path / "none.pth"))
    torch.save({"_conv_stem.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    with pytest.raises(WeightsError, match=r"_conv_stem.weight: expected \(32, 3, 3, 3\), found \(1,\)"):
        network.load_pretrained(str(tmp_path / "foreign.pth"))
