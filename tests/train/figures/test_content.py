"""The content-only control on real pictures: blind to traces, cached, fitted without the sources that are left out."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest

from asr_runtime.errors import DatasetError
from asr_runtime.media.image import read_image
from asr_train.data.layouts import Sample
from asr_train.figures import content
from asr_train.figures.content import content_features, fit_content_probe, picture_weights, too_small


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def samples(examples: Path) -> list[Sample]:
    """Every picture that is at hand: 7 real ones, 9 generated."""
    real = [Sample(p, 0, "photos") for p in sorted((examples / "real").iterdir())]
    return real + [Sample(p, 1, p.name.partition("-")[0]) for p in sorted((examples / "ai").iterdir())]


def test_a_picture_is_described_once(samples: list[Sample], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = content_features(samples[:3])
    assert first.shape == (3, 1280)
    assert len(list(cache.rglob("*.npy"))) == 3
    monkeypatch.setattr(content, "_network", lambda: pytest.fail("described again"))
    np.testing.assert_array_equal(content_features(samples[:3]), first)


def test_the_cache_goes_by_content_and_a_damaged_entry_is_written_again(
    samples: list[Sample], cache: Path, tmp_path: Path
) -> None:
    first = content_features(samples[:1])
    (entry,) = cache.rglob("*.npy")
    entry.write_bytes(entry.read_bytes()[:50])
    np.testing.assert_array_equal(content_features(samples[:1]), first)
    assert entry.stat().st_size > 5000
    copy = tmp_path / f"elsewhere{samples[0].path.suffix}"
    shutil.copy(samples[0].path, copy)
    np.testing.assert_array_equal(content_features([Sample(copy, 1, "x")]), first)
    assert list(cache.rglob("*.npy")) == [entry]


def test_a_cache_that_cannot_be_written_is_no_error(samples: list[Sample], cache: Path) -> None:
    cache.write_text("a file stands in its place")
    assert not np.isnan(content_features(samples[:1])).any()
    cache.unlink()
    cache.mkdir()
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert not np.isnan(content_features(samples[:1])).any()


def test_traces_are_gone_and_content_is_not(samples: list[Sample], tmp_path: Path, cache: Path) -> None:
    """Re-encoding, noise and a checkerboard change the features far less than another subject does."""
    image = read_image(samples[0].path)
    rng = np.random.default_rng(0)
    checkers = 6 * (np.indices(image.shape[:2]).sum(0) % 2)[..., None] - 3
    changed = {
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1),
        "noise": np.clip(image + rng.normal(0, 6, image.shape), 0, 255),
        "checkers": np.clip(image.astype(int) + checkers, 0, 255),
    }
    written = []
    for name, pixels in changed.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels.astype(np.uint8))
        written.append(Sample(tmp_path / f"{name}.png", 0, "x"))
    same, others = content_features([samples[0], *written]), content_features(samples[1:])
    to_changed = np.linalg.norm(same[1:] - same[0], axis=1)
    to_others = np.linalg.norm(others - same[0], axis=1)
    assert to_changed.max() < 0.35 * to_others.min()


def test_a_probe_says_what_it_was_shown_and_unreadable_files_have_no_score(
    samples: list[Sample], tmp_path: Path
) -> None:
    broken = Sample(tmp_path / "broken.jpg", 1, "x")
    broken.path.write_bytes(samples[0].path.read_bytes()[:200])
    missing = Sample(tmp_path / "missing.jpg", 0, "x")
    probe = fit_content_probe([*samples, broken, missing], "the examples")
    assert (probe.images, probe.fitted_on) == (len(samples), "the examples")
    scores = probe.score([broken, *samples, missing])
    assert np.isnan(scores[[0, -1]]).all()
    labels = np.array([s.label for s in samples])
    assert scores[1:-1][labels == 1].min() > scores[1:-1][labels == 0].max()


def test_a_probe_needs_both_classes(samples: list[Sample]) -> None:
    with pytest.raises(DatasetError, match="both classes"):
        fit_content_probe([s for s in samples if s.label == 1])


def test_classes_weigh_the_same_and_a_source_by_the_root_of_its_images() -> None:
    counts = {(0, "photos"): 100, (1, "big"): 64, (1, "small"): 4}
    samples = [Sample(Path(f"{s}{i}"), label, s) for (label, s), n in counts.items() for i in range(n)]
    weights = picture_weights(samples)
    shares = {s: sum(w for w, x in zip(weights, samples, strict=True) if x.source == s) for _, s in counts}
    assert weights.mean() == pytest.approx(1)
    assert shares["photos"] == pytest.approx(shares["big"] + shares["small"])
    assert shares["big"] / shares["small"] == pytest.approx(8 / 2)


def test_a_large_training_set_is_sampled(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "_LARGEST_FIT", 12)
    probe = fit_content_probe(samples)
    assert probe.images == 12


def test_small_pictures_are_refused_because_their_thumbnails_show_traces(samples: list[Sample], tmp_path: Path) -> None:
    assert too_small(samples) is None
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), read_image(samples[0].path)[:32, :40])
    assert too_small([Sample(small, 0, "x")]) == 32
