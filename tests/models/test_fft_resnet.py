"""The FFT-ResNet: spectra, backbones, what is frozen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from asr_models import FFTResNet, OptionError, WeightsError, create_model
from asr_models.spectrum import PatchLogSpectrum, ShiftedLogSpectrum


def test_global_spectrum_is_the_published_one() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 20, 30))
    expected = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(x), axes=(2, 3))))
    spectrum = ShiftedLogSpectrum()(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


def test_patch_spectrum_transforms_each_patch_where_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(1, 2, 16, 24))
    spectrum = PatchLogSpectrum(8)(torch.from_numpy(x).float()).numpy()
    for top in (0, 8):
        for left in (0, 8, 16):
            patch = x[:, :, top : top + 8, left : left + 8]
            expected = np.log1p(np.abs(np.fft.fft2(patch)))
            np.testing.assert_allclose(spectrum[:, :, top : top + 8, left : left + 8], expected, atol=1e-5)


def test_patch_spectrum_names_a_size_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"33 x 32 pixels.*multiples of 32"):
        PatchLogSpectrum(32)(torch.rand(1, 3, 33, 32))


def test_resnet34_has_the_published_parameter_count() -> None:
    assert sum(p.numel() for p in create_model("fft-resnet34").parameters()) == 21_285_698


@pytest.mark.parametrize("name", ["fft-resnet34", "fft-convnext_tiny", "fft-swin_t"])
def test_backbones_give_two_logits_and_train_what_is_not_frozen(name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name, spectrum="patch", freeze=True)
    logits = network(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 2)
    logits.sum().backward()
    trained = [n for n, p in network.named_parameters() if p.grad is not None]
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert trained
    assert frozen
    assert not set(trained) & set(frozen)


def test_published_layers_are_frozen_and_their_statistics_do_not_move() -> None:
    network = FFTResNet(freeze=True).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network(torch.rand(4, 3, 64, 64) * 9)
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    early = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    assert not [k for k in moved if k.startswith(early)]
    assert any(k.startswith("backbone.layer2.") for k in moved)  # the others do move
    frozen = {n for n, p in network.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in network.named_parameters() if n.startswith(early)}


def test_pretrained_weights_come_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = torchvision.models.resnet18(num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    network = FFTResNet("resnet18")
    network.load_pretrained(tmp_path / "resnet18.pth")
    assert torch.equal(network.backbone.state_dict()["layer3.0.conv1.weight"], published.layer3[0].conv1.weight)
    assert network.backbone.state_dict()["fc.weight"].shape == (2, 512)


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "efficientnet_b0", "resnet50", "convnext_tiny", "swin_t"])
def test_published_files_of_every_kind_of_backbone_load(tmp_path: Path, backbone: str) -> None:
    """As torchvision publishes them: with its 1,000 classes; old files do not count batches."""
    torch.manual_seed(0)
    published = torchvision.models.get_model(backbone, weights=None).state_dict()
    state = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "weights.pth")
    network = FFTResNet(backbone, spectrum="patch")
    network.load_pretrained(tmp_path / "weights.pth")
    loaded = network.backbone.state_dict()
    differing = [name for name, value in state.items() if not torch.equal(loaded[name], value)]
    assert len(differing) == 2  # weight and bias of the head
    assert {loaded[name].shape[0] for name in differing} == {2}
    first = next(iter(state))
    torch.save({name: value for name, value in state.items() if name != first}, tmp_path / "cut.pth")
    with pytest.raises(WeightsError, match=f"cut.pth: not weights of {backbone}: {first} is missing"):
        network.load_pretrained(tmp_path / "cut.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a checkpoint", "not a state dict"), (None, "layer.*is missing|is missing")],
)
def test_foreign_weights_are_refused_in_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"something": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        FFTResNet("resnet18").load_pretrained(path)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_without_a_network_name_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(WeightsError, match="--weights FILE"):
        FFTResNet("resnet18").load_pretrained("imagenet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet0"}, "not a classification network"),
        ({"backbone": "squeezenet1_0"}, "last layer is not linear"),
        ({"backbone": "vit_b_16", "freeze": True}, "--no-freeze"),
        ({"spectrum": "local"}, "expected global or patch"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FFTResNet(**options)  # type: ignore[arg-type]
