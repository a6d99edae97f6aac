"""Which CUDA and cuDNN an onnxruntime-gpu needs, and which this machine has.

The table is that of onnxruntime's documentation of 2026 ("Requirements", for the packages on PyPI):
https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html. The extras `[cuda,cudnn]` of
onnxruntime-gpu 1.26 and 1.31 on PyPI ask for the same major versions.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass

from asr_runtime.machine import package_version

__all__ = ["CudaVersions", "misfit", "read_cuda_versions"]

_NEEDS = (
    # onnxruntime-gpu from, CUDA of the same major version from, cuDNN major version
    ((1, 27), (13, 0), 9),
    ((1, 21), (12, 8), 9),
    ((1, 19), (12, 0), 9),
    ((1, 15), (11, 6), 8),
)
_RUNTIMES = ("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_CUDNNS = ("libcudnn.so.9", "libcudnn.so.8")
_PACKAGES = {
    "cuda": ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12", "nvidia-cuda-runtime-cu11"),
    "cudnn": ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12", "nvidia-cudnn-cu11"),
}
_SOURCE = "see https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#requirements"


@dataclass(frozen=True, slots=True)
class CudaVersions:
    """Versions of what CUDA inference rests on; None: not there.

    Attributes:
        onnxruntime_gpu: of the package.
        cuda: of the CUDA runtime library.
        cudnn: of cuDNN.
        driver: the newest CUDA that the GPU's driver runs.
    """

    onnxruntime_gpu: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    driver: str | None = None


def read_cuda_versions() -> CudaVersions:
    """Ask the packages that pip installed, then the libraries of the system."""
    return CudaVersions(
        package_version("onnxruntime-gpu"),
        _of_packages("cuda") or _dotted(_asked(_RUNTIMES, "cudaRuntimeGetVersion", by_pointer=True), 1000),
        _of_packages("cudnn") or _cudnn(_asked(_CUDNNS, "cudnnGetVersion", by_pointer=False)),
        _dotted(_asked(("libcuda.so.1",), "cuDriverGetVersion", by_pointer=True), 1000),
    )


def misfit(versions: CudaVersions) -> str | None:
    """Say in one line which versions do not work together, and what to install; None if they do."""
    ours = versions.onnxruntime_gpu or ""
    needed = next((row for row in _NEEDS if _numbers(ours)[:2] >= row[0]), None)
    if needed is None:
        return f"onnxruntime-gpu {ours or 'is not installed'}: expected 1.15 or newer; pip install 'asrnet-edge[gpu]'"
    _, cuda, cudnn = needed
    asks = f"onnxruntime-gpu {ours} needs CUDA {cuda[0]}.x from {cuda[0]}.{cuda[1]} and cuDNN {cudnn}.x"
    libraries = f"pip install 'onnxruntime-gpu[cuda,cudnn]=={ours}'"
    installed = _numbers(versions.cuda or "")[:2]
    if not installed or installed[0] != cuda[0] or installed < cuda:
        here = f"CUDA {versions.cuda} is" if versions.cuda else "no CUDA runtime is"
        return f"{asks}; {here} here: {libraries}, or another onnxruntime-gpu ({_SOURCE})"
    if _numbers(versions.cudnn or "")[:1] != (cudnn,):
        here = f"cuDNN {versions.cudnn} is" if versions.cudnn else "no cuDNN is"
        return f"{asks}; {here} here: {libraries} ({_SOURCE})"
    if versions.driver is None:
        return f"{asks}; the GPU's driver is not here (libcuda.so.1): install NVIDIA's driver"
    if _numbers(versions.driver)[:1] < cuda[:1]:
        return f"{asks}; the GPU's driver runs CUDA {versions.driver} at most: update NVIDIA's driver"
    return None


def _of_packages(what: str) -> str | None:
    return next((version for name in _PACKAGES[what] if (version := package_version(name)) is not None), None)


def _asked(libraries: tuple[str, ...], function: str, by_pointer: bool) -> int | None:
    """Return the number that a library says is its version."""
    for name in libraries:
        with contextlib.suppress(OSError, AttributeError):
            asked = getattr(ctypes.CDLL(name), function)
            if not by_pointer:
                asked.restype = ctypes.c_size_t
                return int(asked())
            number = ctypes.c_int(0)
            asked(ctypes.byref(number))
            return number.value or None
    return None


def _dotted(number: int | None, thousand: int) -> str | None:
    """12080 -> 12.8."""
    return None if number is None else f"{number // thousand}.{number % thousand // 10}"


def _cudnn(number: int | None) -> str | None:
    """90100 -> 9.1, 8902 -> 8.9: cuDNN 9 counts in ten thousands."""
    if number is None:
        return None
    thousand = 10_000 if number >= 90_000 else 1000
    return f"{number // thousand}.{number % thousand // 100}"


def _numbers(version: str) -> tuple[int, ...]:
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)
