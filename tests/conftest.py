"""Fixtures that all tests share: the example pictures of the repository and small data folders made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# No deadline per example: a shared machine may stop for a second. Derandomised: a failure in CI can be run again.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")

EXAMPLES = Path(__file__).parent.parent / "runtime" / "examples"


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


@pytest.fixture
def generators(tmp_path: Path) -> Path:
    """A data folder in the layout `generators`: real pictures, three sources, train and val."""
    root = tmp_path / "generators"
    real, ai = sorted((EXAMPLES / "real").iterdir()), sorted((EXAMPLES / "ai").iterdir())
    groups = {
        "photos/{}/nature": real,
        "midjourney/{}/ai": [p for p in ai if p.name.startswith("midjourney")],
        "sd3/{}/ai": [p for p in ai if p.name.startswith("sd3")],
    }
    for pattern, files in groups.items():
        for split in ("train", "val"):
            folder = root / pattern.format(split)
            folder.mkdir(parents=True)
            for file in files:
                shutil.copy(file, folder)
    return root


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A data folder in the layout `folders`, as the published ASRNet reads it, with a flat, labelled test folder."""
    root = tmp_path / "dataset"
    for name, source in (("0_real", "real"), ("1_fake", "ai")):
        shutil.copytree(EXAMPLES / source, root / "train" / name)
    (root / "test").mkdir()
    rows = ["image_id,label"]
    for label, source in enumerate(("real", "ai")):
        for file in sorted((EXAMPLES / source).iterdir())[:3]:
            shutil.copy(file, root / "test")
            rows.append(f"{file.name},{label}")
    (root / "label_test.csv").write_text("\n".join(rows) + "\n")
    return root
