"""The boundary to onnxruntime: which one is installed, how a session starts, where it really runs."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import warnings
from pathlib import Path
from typing import Any

from asr_runtime.errors import DependencyError, DeviceError, ModelError
from asr_runtime.heap import give_back_freed_memory
from asr_runtime.machine import usable_cores

__all__ = ["DEVICES", "PROVIDERS", "both_installed", "import_onnxruntime", "open_session"]

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers of each device, the wanted one first."""


def both_installed() -> bool:
    """Whether onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files.

    Looks for the folders that name installed packages. importlib.metadata reads them too, but loads 60 modules for it,
    which cost every start 20 ms and 4 MB.
    """
    packages = {
        path.name.partition("-")[0] for folder in sys.path for path in Path(folder).glob("onnxruntime*.dist-info")
    }
    return {"onnxruntime", "onnxruntime_gpu"} <= packages


@functools.cache
def import_onnxruntime() -> Any:
    """Import onnxruntime, and let its sessions on the CPU share memory that grows by what they need.

    Raises:
        DependencyError: it is missing or broken, or both of its distributions are installed.
    """
    if both_installed():
        raise DependencyError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: uninstall both, "
            "then install one with pip install 'asrnet-edge[cpu]' or 'asrnet-edge[gpu]'"
        )
    try:
        import onnxruntime

        # What one distribution leaves behind when the other is removed imports as an empty package.
        if not hasattr(onnxruntime, "InferenceSession"):
            raise ImportError("the package is incomplete")
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime cannot be imported ({error}): pip install 'asrnet-edge[cpu]', "
            "or 'asrnet-edge[gpu]' on a CUDA device"
        ) from None
    # The C++ logger writes whole paragraphs to stderr for what we report in one line.
    onnxruntime.set_default_logger_severity(4)
    _share_memory(onnxruntime)
    return onnxruntime


def _share_memory(ort: Any) -> None:
    """Let memory for inference grow by what is asked for: by default it doubles, 12 MB more for one picture."""
    by_what_is_asked = {"arena_extend_strategy": 1}
    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(place, ort.OrtArenaCfg(by_what_is_asked))


def open_session(model: bytes, device: str, threads: int | None = None, jobs: int = 1) -> Any:
    """Start a session and make sure that it runs where it was asked to.

    Args:
        model: an ONNX file; bytes, so that what was hashed is what runs.
        device: `cpu`, `cuda` or `tensorrt`.
        threads: of one operator on the CPU; None: every usable core.
        jobs: calls that run side by side.

    Returns:
        `onnxruntime.InferenceSession`.

    Raises:
        DependencyError: no usable onnxruntime is installed.
        DeviceError: the device does not start here.
        ModelError: onnxruntime refuses the model.
    """
    ort = import_onnxruntime()
    providers = PROVIDERS[device]
    available = ort.get_available_providers()
    if providers[0] not in available:
        raise DeviceError(
            f"device {device}: this onnxruntime has no {providers[0]} (it has {', '.join(available)}); "
            "install 'asrnet-edge[gpu]' in place of [cpu], or use --device cpu"
        )
    if device != "cpu" and hasattr(ort, "preload_dlls"):
        with _quiet():
            ort.preload_dlls()  # finds the CUDA libraries that pip installed
    try:
        with _quiet():
            session = ort.InferenceSession(
                model, _options(ort, threads, jobs), providers=list(providers), enable_fallback=0
            )
    except Exception as error:
        reason = _first_line(error)
        if device == "cpu":
            raise ModelError(f"onnxruntime {ort.__version__} cannot load the model: {reason}") from None
        raise DeviceError(f"device {device}: no session starts ({reason}); use --device cpu") from None
    if session.get_providers()[0] != providers[0]:
        raise DeviceError(
            f"device {device}: {providers[0]} did not start and the session fell back to "
            f"{session.get_providers()[0]}; check the GPU driver and the CUDA and cuDNN libraries "
            "(asr-doctor), or use --device cpu"
        )
    give_back_freed_memory()
    return session


def _options(ort: Any, threads: int | None, jobs: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.use_env_allocators", "1")  # see `_share_memory`
    # With a pattern a run takes one block for all that it computes: a second copy of that memory for one call at a
    # time. Calls side by side would otherwise hand each other the blocks of single tensors, and with them the caches
    # of their cores: 15% of the time in some processes, nothing in others.
    options.enable_mem_pattern = jobs > 1
    # Waiting threads would otherwise spin and burn the cores that decode.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "1000")
    options.log_severity_level = 4
    return options


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep onnxruntime's Python layer off standard output, which belongs to the results."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
