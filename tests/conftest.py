"""Fixtures that all tests share: the example pictures of the repository and small data folders made of them."""

from __future__ import annotations

import itertools
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import hypothesis
import pytest

from asr_runtime.machine import _cpuinfo, has_bf16

# No deadline per example: a shared machine may stop for a second. Derandomised: a failure in CI can be run again.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

_VNNI = {"avx512_vnni", "avx_vnni"}
EXAMPLES = Path(__file__).parent.parent / "runtime" / "examples"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what this processor cannot compute.

    Without bfloat16 OpenVINO has no such session. Without VNNI onnxruntime adds products of 8 bits in 16 bits on x86,
    which saturate.
    """
    if item.get_closest_marker("bf16") and not has_bf16():
        pytest.skip("needs a processor that computes in bfloat16")
    is_x86 = platform.machine() == "x86_64"
    if item.get_closest_marker("vnni") and is_x86 and not _VNNI & set(_cpuinfo().get("flags", "").split()):
        pytest.skip("needs a processor with VNNI")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is cached out of the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def examples() -> Path:
    """Folder of real photographs, generated pictures and a video."""
    return EXAMPLES


SOURCES = {
    "photos": (0, {"train": ("real/blouse.jpg", "real/dress.jpg", "real/top.jpg"), "val": ("real/sandals.jpg",)}),
    "snaps": (0, {"train": ("real/cat.png",), "val": ("real/coffee.png",)}),
    "midjourney": (1, {"train": ("ai/midjourney-1.jpg",), "val": ("ai/midjourney-2.jpg",)}),
    "sd3": (1, {"train": ("ai/sd3-1.jpg", "ai/sd3-2.jpg"), "val": ("ai/sd3-3.jpg",)}),
}
"""source -> label and, per split, the example pictures whose quarters it holds: no picture is in two splits."""


@pytest.fixture(scope="session")
def pristine_generators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in the layout `generators`: two photo sources, two generators; quarters of different pictures."""
    root = tmp_path_factory.mktemp("pristine") / "generators"
    for source, (label, splits) in SOURCES.items():
        for split, names in splits.items():
            folder = root / source / split / ("nature", "ai")[label]
            folder.mkdir(parents=True)
            for name in names:
                _write_quarters(EXAMPLES / name, folder)
    return root


@pytest.fixture
def generators(pristine_generators: Path, tmp_path: Path) -> Path:
    """A copy of `pristine_generators` that a test may change."""
    return Path(shutil.copytree(pristine_generators, tmp_path / "generators"))


def _write_quarters(path: Path, folder: Path) -> None:
    image = cv2.imread(str(path))
    assert image is not None
    height, width = image.shape[0] // 2, image.shape[1] // 2
    for number, (top, left) in enumerate(itertools.product((0, height), (0, width))):
        quarter = image[top : top + height, left : left + width]
        cv2.imwrite(str(folder / f"{path.stem}-{number}{path.suffix}"), quarter)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A data folder in the layout `folders`, as the published ASRNet reads it, with a flat, labelled test folder.

    The first three pictures of each class are the test split; training has the others.
    """
    root = tmp_path / "dataset"
    (root / "test").mkdir(parents=True)
    rows = ["image_id,label"]
    for label, (source, name) in enumerate((("real", "0_real"), ("ai", "1_fake"))):
        (root / "train" / name).mkdir(parents=True)
        for number, file in enumerate(sorted((EXAMPLES / source).iterdir())):
            shutil.copy(file, root / "test" if number < 3 else root / "train" / name)
            if number < 3:
                rows.append(f"{file.name},{label}")
    (root / "label_test.csv").write_text("\n".join(rows) + "\n")
    return root
