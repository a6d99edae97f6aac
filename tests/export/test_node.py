"""The file outside Python: JavaScript gives the same probability for the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from asr_export.parity_inputs import adversarial_frames, packaged_images, real_frames
from asr_runtime import Detector
from asr_runtime.inference.builtin import builtin_path

_HERE = Path(__file__).with_name("node")

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="session")
def node_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and onnxruntime for Node.js."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in _HERE.iterdir():
        shutil.copy(file, folder)
    # Its install script downloads CUDA libraries; what runs on the CPU is in the package.
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("model", ["exported", "asrnet-lite", "asrnet-lite-tiny"])
def test_raw_bytes_give_the_same_probability_in_javascript(
    node_project: Path, exported: Path, tmp_path: Path, model: str
) -> None:
    path = exported if model == "exported" else builtin_path(model)
    detector = Detector(path)
    batches = [*list(real_frames(packaged_images()))[::5], *list(adversarial_frames(200))[-6:]]
    for batch in batches:
        batch.frames.tofile(tmp_path / "frames.bin")
        shape = [str(length) for length in batch.frames.shape[:3]]
        command = ["node", "score.js", str(path), str(tmp_path / "frames.bin"), *shape]
        done = subprocess.run(command, cwd=node_project, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found, expected = json.loads(done.stdout), detector(batch.frames)
        np.testing.assert_allclose(found["probability"], expected.probability, atol=1e-5, err_msg=batch.name)
