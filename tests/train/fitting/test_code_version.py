"""The version of code changes with every byte that decides about features, and with no other."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asr_train.fitting.extraction import _ALONE, _FEATURES_COME_FROM

_ROOT = Path(__file__).parent.parent.parent.parent
_ASK = """
import json, sys
sys.path[:0] = sys.argv[2:]
from asr_train.fitting.code_version import code_version
print(code_version(*json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source that a test may change."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("models", "train", "runtime"):
        skipped = shutil.ignore_patterns("__pycache__", "*.onnx")
        shutil.copytree(_ROOT / name, folder / name, ignore=skipped)
    return folder


def _version(source: Path) -> str:
    folders = [str(source / name) for name in ("models", "train", "runtime")]
    asked = subprocess.run(
        [sys.executable, "-S", "-c", _ASK, json.dumps([_FEATURES_COME_FROM, _ALONE]), *folders],
        capture_output=True,
        check=True,
    )
    return asked.stdout.decode()


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("train/asr_train/data/augment.py", True),
        ("train/asr_train/data/edits.py", True),  # imported by augment
        ("train/asr_train/data/clips.py", True),
        ("train/asr_train/data/windows.py", True),
        ("train/asr_train/fitting/feature_tables.py", True),
        ("train/asr_train/data/layouts.py", True),
        ("runtime/asr_runtime/media/image.py", True),
        ("runtime/asr_runtime/media/depth.py", True),  # imported by image
        ("models/asr_models/asrnet_lite.py", True),
        ("models/asr_models/efficientnet_lite.py", True),  # imported by asrnet_lite
        ("models/asr_models/input_transform.py", True),  # handed on by the package
        ("train/asr_train/data/roles.py", False),  # imported by layouts, which counts alone
        ("models/asr_models/fft_resnet.py", False),  # handed on by the package, not asked for
        ("train/asr_train/figures/calibrate.py", False),
        ("runtime/asr_runtime/media/video.py", False),
    ],
)
def test_a_byte_of_what_makes_features_is_another_version(source: Path, file: str, counts: bool) -> None:
    path = source / file
    before, text = _version(source), path.read_bytes()
    path.write_bytes(text + b"#")
    try:
        assert (_version(source) != before) is counts
    finally:
        path.write_bytes(text)
