"""The boundary to OpenVINO, the optional second engine on the CPU: float32 as exact as onnxruntime's, or bf16.

In bf16 everything up to the last matrix product of the graph is computed with 8 bits of mantissa. Keeping the
reductions, the head and the residual sums of ASRNet-Lite in float32 was tried and changed nothing: the error comes from
the convolutions. What it costs a file is measured by `asr-export --precision bf16`, and the card says whether it may be
used.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DependencyError, DeviceError, InferenceError, ModelError
from asr_runtime.machine import usable_cores

__all__ = ["OpenVinoSession", "has_native_bf16", "import_openvino", "openvino_core", "openvino_version"]

_POLL_MS = 50  # between looks at whether a run is to stop; one that ends sooner is not delayed
_PRECISION_HINTS = {"fp32": "f32", "bf16": "bf16"}


def import_openvino() -> Any:
    """Import OpenVINO.

    Raises:
        DependencyError: it is missing or broken.
    """
    try:
        import openvino

        # A folder that an uninstalled package leaves behind imports as an empty package.
        if not hasattr(openvino, "Core"):
            raise ImportError("the package is incomplete")
    except ImportError as error:
        raise DependencyError(f"OpenVINO cannot be imported ({error}): pip install 'asrnet-edge[openvino]'") from None
    return openvino


def openvino_core() -> Any:
    """Return the one `openvino.Core` of this process, which is never given back.

    The first model that a core compiles gives the calling thread a stack of its own for signal handlers; a core that
    ends frees that stack. Cores that end in another order than they began in leave the thread with freed memory, and
    the next signal, such as Ctrl-C, ends the process.

    Raises:
        DependencyError: OpenVINO is missing or broken.
        RuntimeError: whatever OpenVINO raises.
    """
    return _core(import_openvino())


@functools.cache
def _core(openvino: Any) -> Any:
    return openvino.Core()


def openvino_version() -> str:
    """Return the version of OpenVINO, without that of its build.

    Raises:
        DependencyError: it is missing or broken.
    """
    return str(import_openvino().__version__).partition("-")[0]


def has_native_bf16() -> bool:
    """Whether the processor computes in bf16 itself; elsewhere OpenVINO emulates it, slower than float32.

    Raises:
        DependencyError: OpenVINO is missing or broken.
        DeviceError: its CPU plugin does not start.
    """
    import_openvino()
    try:
        return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except Exception as error:  # OpenVINO's errors have no common root but this one
        raise DeviceError(f"OpenVINO does not start on the CPU: {_last_line(error)}") from None


class OpenVinoSession:
    """A model in OpenVINO on the CPU, run as an `onnxruntime.InferenceSession` is.

    Calls from several threads take turns.

    Args:
        model: an ONNX file; bytes, so that what was hashed is what runs.
        precision: `fp32`, or `bf16` where the processor can do or emulate it.
        threads: of one inference; None: every usable core.

    Raises:
        DependencyError: OpenVINO is missing or broken.
        DeviceError: it does not run the model in this precision on this processor.
        ModelError: it cannot load the model.
    """

    def __init__(self, model: bytes, precision: Literal["fp32", "bf16"], threads: int | None = None) -> None:
        self._openvino = import_openvino()
        self._settings = {
            # Without this setting, OpenVINO computes in bf16 where the processor can, and does not say so.
            "INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision],
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Two processes of one thread each would be pinned to the same core.
            "ENABLE_CPU_PINNING": False,
        }
        self._turn = threading.Lock()
        try:
            self._model = openvino_core().read_model(model)
        except Exception as error:  # OpenVINO's errors have no common root but this one
            raise ModelError(f"OpenVINO {openvino_version()} cannot load it: {_last_line(error)}") from None
        try:
            self._request = self._compile()
            hint = self._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")
        except Exception as error:  # OpenVINO's errors have no common root but this one
            reason = f"OpenVINO does not run it in {precision} here: {_last_line(error)}"
            raise DeviceError(f"{reason}; use --precision file") from None
        if hint.get_type_name() != _PRECISION_HINTS[precision]:
            raise DeviceError(
                f"OpenVINO computes in {hint.get_type_name()} on this processor, not in {precision}; "
                "use --precision file"
            )

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.uint8]], options: Any = None) -> list[Any]:
        """Run the model.

        Args:
            outputs: names of the outputs wanted.
            feeds: inputs by name.
            options: `onnxruntime.RunOptions`; once its `terminate` is set, the run stops.

        Returns:
            The outputs, as arrays of their own.

        Raises:
            InferenceError: it was stopped.
            RuntimeError: whatever OpenVINO raises.
        """
        with self._turn:
            if self._request is None:
                self._request = self._compile()
            request, finished = self._request, False
            try:
                for name, value in feeds.items():
                    request.set_tensor(name, self._openvino.Tensor(value, shared_memory=True))
                request.start_async()
                while not request.wait_for(_POLL_MS):
                    if options is not None and options.terminate:
                        raise InferenceError("the run was stopped")
                request.wait()  # raises what went wrong
                results = [np.array(request.get_tensor(name).data) for name in outputs]
                finished = True
            finally:
                if not finished:
                    self._abandon()
        return results

    def _compile(self) -> Any:
        return openvino_core().compile_model(self._model, "CPU", self._settings).create_infer_request()

    def _abandon(self) -> None:
        """Stop a run; after that the compiled model may give the shapes, or values, of the run that was stopped."""
        request, self._request = self._request, None
        request.cancel()
        with contextlib.suppress(Exception):
            request.wait()  # it reads the caller's frames until then


def _last_line(error: Exception) -> str:
    """Return the reason, which stands below the places in OpenVINO's sources."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"])[-1]
