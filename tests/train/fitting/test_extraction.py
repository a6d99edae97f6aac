"""Extraction: the fast way computes what PyTorch computes, and a stopped run goes on where it stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from loaded_features import views_of, windows_of
from tiny_training import tiny

from asr_models import ASRNetLite
from asr_train.data.layouts import find_data
from asr_train.fitting import extraction
from asr_train.fitting.closed_form import pretrained
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor, _openvino
from asr_train.fitting.features import FeatureStore


def test_openvino_gives_the_features_of_pytorch(generators: Path) -> None:
    network = pretrained(tiny(generators))
    assert isinstance(network, ASRNetLite)
    x = torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network.eval().features(x).numpy()
    np.testing.assert_allclose(_openvino(network, 48, threads=2)(x), expected, rtol=1e-4, atol=1e-4)


def test_what_is_worth_compiling_is_judged_by_windows_not_by_pictures(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = tiny(generators, windows=5), find_data(generators)
    counted: list[int] = []
    fastest = extraction._fastest

    def counting(network: ASRNetLite, size: int, config: ClosedFormConfig, windows: int) -> extraction.Features:
        counted.append(windows)
        return fastest(network, size, config, windows)

    monkeypatch.setattr(extraction, "_fastest", counting)
    FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert counted == [(len(data.train) + len(data.val)) * (5 + config.views)]


def test_a_stopped_extraction_goes_on_with_what_is_missing(generators: Path, tmp_path: Path) -> None:
    config, data = tiny(generators, windows=5), find_data(generators)
    whole = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    files = sorted((tmp_path / "features").glob("*.npz"))
    times = {file: file.stat().st_mtime_ns for file in files}
    files[0].unlink()
    again = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert [file for file in files if file.stat().st_mtime_ns != times[file]] == files[:1]
    np.testing.assert_array_equal(windows_of(again), windows_of(whole))
    np.testing.assert_array_equal(views_of(again, 5), views_of(whole, 5))
    assert windows_of(whole).shape[:2] == (len(data.train) + len(data.val), 5)


def test_another_recipe_has_files_of_its_own(generators: Path, tmp_path: Path) -> None:
    config, data = tiny(generators), find_data(generators)
    counts = []
    for one in (config, config, dataclasses.replace(config, seed=43)):
        FeatureStore(Extractor(pretrained(one), one), data, tmp_path)
        counts.append(len(list((tmp_path / "features").glob("*.npz"))))
    assert counts == [counts[0], counts[0], 2 * counts[0]]


@pytest.mark.parametrize("changed", ["the code", "a package"])
def test_features_of_other_code_are_not_used(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    config, data = tiny(generators), find_data(generators)
    FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    files = set((tmp_path / "features").glob("*.npz"))
    now = extraction.made_by()
    other = {"code": "0" * 64} if changed == "the code" else {"opencv-python": "5.0.0.93"}
    monkeypatch.setattr(extraction, "made_by", lambda: now | other)
    FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert len(set((tmp_path / "features").glob("*.npz")) - files) == len(files)


def test_the_version_of_features_covers_what_makes_them() -> None:
    assert {"code", "numpy", "opencv-python", "torch", "av"} <= set(extraction.made_by())


def test_another_picture_of_the_same_name_and_size_is_extracted_again(generators: Path, tmp_path: Path) -> None:
    config, data = tiny(generators), find_data(generators)
    before = windows_of(FeatureStore(Extractor(pretrained(config), config), data, tmp_path))
    path = data.train[0].path
    other, own = data.train[1].path.read_bytes(), path.read_bytes()
    longest = max(len(own), len(other))
    for content in (own, other):  # bytes after the end of a JPEG are no part of the picture
        path.write_bytes(content.ljust(longest, b"\0"))
        after = FeatureStore(Extractor(pretrained(config), config), find_data(generators), tmp_path)
        assert np.array_equal(windows_of(after)[0], before[0]) == (content == own)


@pytest.mark.parametrize("damage", ["empty", "cut", "a bit", "another file", "no numbers"])
def test_a_damaged_file_of_features_is_made_again(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    config, data = tiny(generators), find_data(generators)
    whole = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    windows, views = windows_of(whole), views_of(whole)
    file = max((tmp_path / "features").glob("*.npz"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "another file":
        np.savez(file, something=np.zeros(3))
    elif damage == "no numbers":
        file.write_bytes(b"not an archive")
    else:
        file.write_bytes({"empty": b"", "cut": bytes(content[:-500]), "a bit": bytes(content)}[damage])
    again = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert f"{file}: damaged" in caplog.text
    np.testing.assert_array_equal(windows_of(again), windows)
    np.testing.assert_array_equal(views_of(again), views)


def test_unreadable_pictures_are_named_and_the_others_keep_their_places(generators: Path, tmp_path: Path) -> None:
    broken = sorted((generators / "photos" / "val" / "nature").iterdir())[1]
    broken.write_bytes(b"\xff\xd8\xff")
    config, data = tiny(generators), find_data(generators)
    table = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert list(table.unreadable) == [str(broken)]
    samples = table.samples(np.arange(len(table)))
    assert [s.path for s in samples] == [s.path for s in (*data.train, *data.val) if s.path != broken]
    assert len(windows_of(table)) == len(table) == len(table.labels)
    assert table.rows(samples).tolist() == list(range(len(table)))


def test_a_picture_that_can_be_read_again_is_extracted(
    generators: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, data = tiny(generators), find_data(generators)
    away = data.train[0].path
    away.rename(tmp_path / "away")  # a disk that was gone for a while: the list of pictures is from before
    without = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert list(without.unreadable) == [str(away)]
    (tmp_path / "away").rename(away)
    caplog.set_level("INFO", logger="asr_train")
    again = FeatureStore(Extractor(pretrained(config), config), data, tmp_path)
    assert again.unreadable == {}
    assert len(again) == len(without) + 1
    assert f"{away}: can be read now" in caplog.text
    assert "features: 1 of" in caplog.text
