"""Augmentation and sampling: the same for both classes, the same for the same seed."""

from __future__ import annotations

import platform
import resource
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from asr_models import InputTransform
from asr_runtime.media.image import read_image
from asr_train.data.augment import Augment, equalise, mirrored_window
from asr_train.data.batches import EvaluationImages, TrainingImages, collate, prepare_worker
from asr_train.data.draws import BalancedSampler
from asr_train.data.layouts import Sample

_NOTHING = Augment(flip=False, rotation="none", reencode=0, resize=0, blur=0, noise=0, patch_mask=0)


@pytest.fixture
def samples(examples: Path) -> list[Sample]:
    return [Sample(p, 0, "real") for p in sorted((examples / "real").iterdir())]


@pytest.mark.parametrize("mode", [("crop", 96), ("resize-crop", 112, 128), ("squash", 112)])
def test_the_same_draw_gives_the_same_crop_and_another_draw_another(
    samples: list[Sample], mode: tuple[object, ...]
) -> None:
    images = TrainingImages(samples, InputTransform(*mode), Augment())  # type: ignore[arg-type]
    a, b, c = images[0, 11].frame, images[0, 11].frame, images[0, 12].frame
    assert a is not None
    assert b is not None
    assert c is not None
    assert a.shape == (mode[1], mode[1], 3)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_without_augmentation_a_training_crop_is_a_window_of_the_image(samples: list[Sample]) -> None:
    image = read_image(samples[0].path)
    frame = TrainingImages(samples, InputTransform("crop", 64), _NOTHING)[0, 5].frame
    assert frame is not None
    match = cv2.matchTemplate(image, frame.numpy(), cv2.TM_SQDIFF)
    assert match.min() < 1.0


def test_reencoding_changes_pixels_at_its_quality(samples: list[Sample]) -> None:
    image = read_image(samples[0].path)
    psnr = [cv2.PSNR(image, equalise(image, q)) for q in (30, 60, 95)]
    assert psnr == sorted(psnr)
    assert psnr[2] < 60


def test_masking_blackens_whole_patches_up_to_its_ratio() -> None:
    image = np.full((64, 64, 3), 200, np.uint8)
    augment = Augment(flip=False, rotation="none", patch_mask=1.0, patch=16, mask_ratio=0.5)
    shares = []
    for seed in range(50):
        masked = augment.pose(image, np.random.default_rng(seed))
        patches = masked.reshape(4, 16, 4, 16, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1)
        assert all(len(set(p.tolist())) == 1 for p in patches)
        shares.append(float((patches[:, 0] == 0).mean()))
    assert 0.1 < np.mean(shares) < 0.4
    assert (image == 200).all()  # the caller's image is untouched


def test_quarter_turns_keep_every_pixel_and_free_turns_do_not() -> None:
    image = np.random.default_rng(0).integers(1, 256, (32, 32, 3), dtype=np.uint8)
    quarter = Augment(rotation="quarter", patch_mask=0).pose(image, np.random.default_rng(1))
    assert Counter(map(tuple, quarter.reshape(-1, 3))) == Counter(map(tuple, image.reshape(-1, 3)))
    free = Augment(rotation="free", patch_mask=0).pose(image, np.random.default_rng(1))
    assert (free == 0).all(axis=2).any()  # corners are black


@settings(max_examples=40)
@given(top=st.integers(-40, 40), left=st.integers(-40, 40), height=st.integers(1, 50), width=st.integers(1, 50))
def test_a_window_beyond_the_image_mirrors_it(top: int, left: int, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    padded = np.pad(image, ((60, 100), (60, 100), (0, 0)), mode="symmetric")
    expected = padded[60 + top :][:height, 60 + left :][:, :width]
    np.testing.assert_array_equal(mirrored_window(image, top, left, height, width), expected)


def _many(counts: dict[tuple[int, str], int]) -> list[Sample]:
    return [Sample(Path(f"{s}{i}"), label, s) for (label, s), n in counts.items() for i in range(n)]


def test_balanced_drawing_gives_both_classes_half_and_small_sources_more_than_their_share() -> None:
    samples = _many({(0, "photos"): 900, (1, "big"): 400, (1, "small"): 4})
    drawn = [samples[i] for i, _ in BalancedSampler(samples, "sources", 20_000, seed=0)]
    labels = Counter(s.label for s in drawn)
    assert abs(labels[0] / 20_000 - 0.5) < 0.02
    small = sum(s.source == "small" for s in drawn) / labels[1]
    assert abs(small - 2 / (2 + 20)) < 0.02  # sqrt(4) against sqrt(400)
    plain = [samples[i] for i, _ in BalancedSampler(samples, "none", 20_000, seed=0)]
    assert abs(sum(s.label == 0 for s in plain) / 20_000 - 900 / 1304) < 0.02


def test_draws_depend_on_seed_and_epoch_only() -> None:
    samples = _many({(0, "a"): 5, (1, "b"): 5})

    def draws(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = BalancedSampler(samples, "classes", 20, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draws(1, 3) == draws(1, 3)
    assert draws(1, 3) != draws(1, 4)
    assert draws(1, 3) != draws(2, 3)


def test_unreadable_files_are_left_out_of_the_batch_and_named(samples: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(samples[0].path.read_bytes()[:500])
    images = EvaluationImages([samples[0], Sample(broken, 1, "x")], InputTransform("crop", 64), 90)
    batch = collate([images[0], images[1]])
    assert batch.frames.shape == (1, 64, 64, 3)
    assert batch.labels.tolist() == [0]
    assert [index for index, _ in batch.problems] == [1]
    assert "broken.jpg" in batch.problems[0][1]
    assert len(collate([images[1]]).labels) == 0


class Pages(Dataset[int]):
    """Counts the fresh pages of a second picture of 12 megapixels."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, _: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(36_000_000)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")
def test_reading_processes_use_the_memory_of_a_picture_again() -> None:
    loader = DataLoader(Pages(), batch_size=None, num_workers=1, worker_init_fn=prepare_worker)
    assert list(loader)[1] < 100
