"""The file outside Python: C++ and JavaScript give the same probability for the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from asr_export.onnx_file import export
from asr_export.parity_inputs import adversarial_frames, packaged_images, real_frames
from asr_models import Checkpoint, create_model, default_preprocess
from asr_runtime import Detector
from asr_runtime.inference.builtin import BUILTIN, builtin_path

_EMBED = Path(__file__).parents[3] / "runtime" / "embed"

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def asrnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported, untrained ASRNet: Fourier transforms as matrix products."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "asrnet.onnx"
    network = create_model("asrnet", dim=8).eval()
    export(Checkpoint("asrnet", {"dim": 8}, default_preprocess("asrnet"), network), path)
    return path


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network behind the resizing of the FFT networks, which is most of its graph."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "resized.onnx"
    network = create_model("asrnet", dim=8).eval()
    preprocess = {"mode": "resize-crop", "size": 96, "resize": 112}
    export(Checkpoint("asrnet", {"dim": 8}, preprocess, network), path)
    return path


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The JavaScript example with onnxruntime for Node.js."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copytree(_EMBED / "javascript", folder, dirs_exist_ok=True)
    # Its install script downloads CUDA libraries; what runs on the CPU is in the package.
    _run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"], folder)
    return ["node", str(folder / "score.js")]


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The C++ example, built with the headers of Debian's package and the library of the Python package."""
    for tool in ("cmake", "g++", "apt-get"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp("cpp")
    root = folder / "onnxruntime"
    (root / "lib").mkdir(parents=True)
    _unpack_headers(folder)
    (root / "include").symlink_to(folder / "package" / "usr" / "include")
    (library,) = Path(onnxruntime.__file__).with_name("capi").glob("libonnxruntime.so.*.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(library)
    _run(["cmake", "-S", str(_EMBED / "cpp"), "-B", "build", f"-DONNXRUNTIME_ROOT={root}"], folder)
    _run(["cmake", "--build", "build"], folder)
    return [str(folder / "build" / "score")]


def _unpack_headers(folder: Path) -> None:
    """Download Debian's libonnxruntime-dev and unpack it; nothing is installed.

    Debian 12 does not have it yet: there, its package lists are read from the same archive's Debian 13.
    """
    options: list[str] = []
    if "Candidate: (none)" in (policy := _run(["apt-cache", "policy", "libonnxruntime-dev"], folder)) or not policy:
        targets = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]
        archives = [line.split()[0] for line in _run(targets, folder).splitlines() if "security" not in line]
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / "apt" / name).mkdir(parents=True)
        (folder / "apt" / "sources.list").write_text(f"deb {archives[0]} trixie main\n")
        settings = {
            "Dir::Etc::SourceList": folder / "apt" / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "apt" / "lists",
            "Dir::Cache": folder / "apt" / "cache",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        _run(["apt-get", *options, "update"], folder)
    _run(["apt-get", *options, "download", "libonnxruntime-dev"], folder)
    (package,) = folder.glob("*.deb")
    _run(["dpkg-deb", "--extract", str(package), "package"], folder)


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("model", ["asrnet", "resized", "asrnet-lite", "asrnet-lite-tiny"])
@pytest.mark.parametrize("language", ["javascript", "cpp"])
def test_raw_bytes_give_the_same_probability_in_other_languages(
    language: str, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program: list[str] = request.getfixturevalue(language)
    path: Path = builtin_path(model) if model in BUILTIN else request.getfixturevalue(model)
    detector = Detector(path)
    batches = [next(iter(real_frames(packaged_images()))), *list(adversarial_frames(200))[-5:]]
    for batch in batches:
        batch.frames.tofile(tmp_path / "frames.bin")
        shape = [str(length) for length in batch.frames.shape[:3]]
        answer = json.loads(_run([*program, str(path), str(tmp_path / "frames.bin"), *shape], tmp_path))
        expected = detector(batch.frames)
        np.testing.assert_allclose(answer["probability"], expected.probability, atol=1e-5, err_msg=batch.name)
        np.testing.assert_allclose(np.reshape(answer["logits"], (-1, 2)), expected.logits, rtol=1e-4, atol=1e-4)


def test_wrong_bytes_are_one_line(cpp: list[str], tmp_path: Path) -> None:
    (tmp_path / "frames.bin").write_bytes(b"\0" * 10)
    command = [*cpp, str(builtin_path("asrnet-lite")), str(tmp_path / "frames.bin"), "1", "2", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected N * H * W * 3 bytes, found 10" in done.stderr
