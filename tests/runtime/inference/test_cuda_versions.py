"""Which versions of onnxruntime-gpu, CUDA, cuDNN and the driver work together: one line where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from asr_runtime import doctor
from asr_runtime.doctor import examine
from asr_runtime.inference import cuda_versions
from asr_runtime.inference.cuda_versions import CudaVersions, misfit, read_cuda_versions


@pytest.mark.parametrize(
    "versions",
    [
        ("1.31.1", "13.0.48", "9.14.0.64", "13.0"),
        ("1.31.1", "13.2", "9.1", "13.2"),
        ("1.26.0", "12.8", "9.1", "12.8"),
        ("1.26.0", "12.9.79", "9.10.2.21", "13.0"),  # a newer driver runs older CUDA
        ("1.20.2", "12.1.105", "9.1.0.70", "12.1"),
        ("1.18.1", "11.8", "8.9", "12.4"),
    ],
)
def test_versions_of_the_table_work_together(versions: tuple[str, str, str, str]) -> None:
    assert misfit(CudaVersions(*versions)) is None


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (("1.31.1", "12.8", "9.1", "13.0"), "needs CUDA 13.x from 13.0 and cuDNN 9.x; CUDA 12.8 is here"),
        (("1.26.0", "13.0", "9.1", "13.0"), "needs CUDA 12.x from 12.8 and cuDNN 9.x; CUDA 13.0 is here"),
        (("1.26.0", "12.4", "9.1", "12.8"), "CUDA 12.4 is here: pip install 'onnxruntime-gpu[cuda,cudnn]==1.26.0'"),
        (("1.31.1", None, "9.1", "13.0"), "no CUDA runtime is here"),
        (("1.31.1", "13.0", "8.9.7.29", "13.0"), "cuDNN 8.9.7.29 is here"),
        (("1.31.1", "13.0", None, "13.0"), "no cuDNN is here"),
        (("1.31.1", "13.0", "9.1", None), "the GPU's driver is not here"),
        (("1.31.1", "13.0", "9.1", "12.8"), "the GPU's driver runs CUDA 12.8 at most"),
        (("1.8.0", "11.0", "8.0", "11.0"), "onnxruntime-gpu 1.8.0: expected 1.15 or newer"),
        (("a build", "13.0", "9.1", "13.0"), "expected 1.15 or newer"),
    ],
)
def test_versions_that_do_not_are_one_line_with_what_to_do(versions: tuple[str | None, ...], message: str) -> None:
    line = misfit(CudaVersions(*versions))
    assert line is not None
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            {"cudaRuntimeGetVersion": 12080, "cudnnGetVersion": 90100, "cuDriverGetVersion": 13000},
            ("12.8", "9.1", "13.0"),
        ),
        (
            {"cudaRuntimeGetVersion": 11080, "cudnnGetVersion": 8902, "cuDriverGetVersion": 12040},
            ("11.8", "8.9", "12.4"),
        ),
        ({}, (None, None, None)),
    ],
)
def test_libraries_say_their_versions(
    monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int], expected: tuple[str | None, ...]
) -> None:
    monkeypatch.setattr(cuda_versions, "package_version", lambda name: {"onnxruntime-gpu": "1.26.0"}.get(name))
    monkeypatch.setattr(cuda_versions, "_asked", lambda names, function, by_pointer: numbers.get(function))
    assert read_cuda_versions() == CudaVersions("1.26.0", *expected)


def test_packages_of_pip_come_before_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"onnxruntime-gpu": "1.31.1", "nvidia-cuda-runtime": "13.0.48", "nvidia-cudnn-cu13": "9.14.0.64"}
    monkeypatch.setattr(cuda_versions, "package_version", known.get)
    versions = read_cuda_versions()
    assert (versions.onnxruntime_gpu, versions.cuda, versions.cudnn) == ("1.31.1", "13.0.48", "9.14.0.64")


def test_the_doctor_checks_the_versions_where_the_gpu_package_is_installed(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(versions: CudaVersions) -> list[tuple[bool, bool, str]]:
        monkeypatch.setattr(doctor, "read_cuda_versions", lambda: versions)
        monkeypatch.setattr(doctor, "_images", lambda: iter(()))
        monkeypatch.setattr(doctor, "_videos", lambda: iter(()))
        monkeypatch.setattr(doctor, "_live", lambda: iter(()))
        checks = examine(model_path).checks
        return [(c.ok, c.needed, c.detail) for c in checks if (c.group, c.name) == ("packages", "cuda")]

    assert lines(CudaVersions(cuda="12.8", cudnn="9.1", driver="12.8")) == []  # the CPU's package
    ((ok, needed, detail),) = lines(CudaVersions("1.31.1", "12.8", "9.1", "13.0"))
    assert (ok, needed) == (False, False)
    assert "needs CUDA 13.x" in detail
    ((ok, _, detail),) = lines(CudaVersions("1.31.1", "13.0.48", "9.14.0.64", "13.0"))
    assert ok
    assert "CUDA 13.0.48, cuDNN 9.14.0.64 work together" in detail
