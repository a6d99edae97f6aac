"""Frames -> calibrated probabilities and verdicts, with one exported file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import CARD_KEY, ModelCard, Verdict
from asr_runtime.errors import ConfigurationError, DeviceError, InferenceError, ModelError, SourceError
from asr_runtime.inference.builtin import BUILTIN, DEFAULT, builtin_path
from asr_runtime.inference.deadline import Run, TimedSession, check_deadline
from asr_runtime.inference.flatness import judged_window, nothing_to_judge
from asr_runtime.inference.looking import Look, LookChoice, chosen_look, look_at, map_of
from asr_runtime.inference.onnxruntime_engine import DEVICES, PROVIDERS, import_onnxruntime, open_session
from asr_runtime.inference.self_check import check_card
from asr_runtime.inference.self_contained import check_self_contained
from asr_runtime.machine import usable_cores
from asr_runtime.media.regular_file import check_regular_file
from asr_runtime.windows import Window

__all__ = ["PRECISIONS", "Detector", "Scores"]

T = TypeVar("T")

PRECISIONS = ("file", "bf16", "auto")

_SELF_CHECK_SECONDS = 60.0  # at least: a first inference also plans memory, on a device that may be busy
_MOST_THREADS = 1024  # more than any machine has cores; a system ends a process that starts many more
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MAX_MODEL_BYTES = 2**31 - 1  # of a protocol buffer; a longer file is something else


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The scores of N frames.

    Attributes:
        probability: float32 `(N,)`, calibrated P(AI-generated), 0..1.
        logits: float32 `(N, 2)`, `[real, ai]`, before calibration.
        verdicts: N of `real`, `ai`, `unsure`, by the decision rule of the card; `unsure` where there is a reason.
        reasons: N phrases that say why a frame holds nothing to judge, or None; see `inference.flatness`.
    """

    probability: NDArray[np.float32]
    logits: NDArray[np.float32]
    verdicts: tuple[Verdict, ...]
    reasons: tuple[str | None, ...]


class Detector:
    """An exported model, checked and ready.

    Example:
        >>> detector = Detector("asrnet.onnx")                # doctest: +SKIP
        >>> detector(read_image("photo.jpg")).verdicts        # doctest: +SKIP
        ('real',)

    Args:
        model: path of an exported `.onnx` file, its bytes, or the name of a built-in model (default: asrnet-lite).
        device: `cpu`, `cuda`, `tensorrt`, or `auto`: CUDA where it really starts, otherwise the CPU.
        precision: `file`: the file's own, in onnxruntime. `bf16`: by OpenVINO on the CPU, for a file whose card says
            that it passed the gate for it (`asr-export --precision bf16`). `auto`: on the CPU whatever engine is
            fastest on this machine, of those that keep the promises of the card (`engine_choice.choose_engine`).
        threads: CPU threads of one inference, at least 1; None: the usable cores, shared by the `jobs`.
        sha256: the model file that is expected, 64 hexadecimal digits; None: any.
        deadline: seconds in which a call answers; calls from more threads than `jobs` then take turns. None: no limit.
        jobs: calls that run side by side, from as many threads, at least 1. `screen` scores files in as many threads.
            OpenVINO computes one call at a time.

    Attributes:
        name: the path or built-in name; `bytes` for a model given as bytes.
        sha256: of the model file, hexadecimal.
        card: the facts that travel with the model.
        jobs: calls that run side by side.
        provider: the onnxruntime execution provider that runs it, or `openvino fp32`, or `openvino bf16`.
        choice: what `precision="auto"` chose and why, one line; empty otherwise.

    Raises:
        ModelError: the file cannot be read, is not the one pinned by `sha256`, has no valid card, or its graph
            contradicts card or contract; or no bf16 is promised for it.
        DeviceError: the device does not start here.
        DependencyError: no usable onnxruntime is installed, or no OpenVINO for bf16.
        ConfigurationError: an unknown device or precision, bf16 on another device than the CPU, threads or jobs not
            from 1 to 1024, no SHA-256 in `sha256`, or a `deadline` that is not above 0.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | None = None,
        *,
        device: str = "auto",
        precision: str = "file",
        threads: int | None = None,
        sha256: str | None = None,
        deadline: float | None = None,
        jobs: int = 1,
    ) -> None:
        if device not in DEVICES:
            raise ConfigurationError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
        if precision not in PRECISIONS:
            raise ConfigurationError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
        if precision == "bf16" and device not in ("auto", "cpu"):
            raise ConfigurationError(f"precision bf16 is for the CPU, and device is {device}: leave one of them out")
        for name, count in (("threads", threads), ("jobs", jobs)):
            if count is not None and not 1 <= count <= _MOST_THREADS:
                raise ConfigurationError(f"{name} {count}: expected 1 to {_MOST_THREADS}")
        if sha256 is not None and not _SHA256.fullmatch(sha256):
            raise ConfigurationError(f"sha256 {sha256!r}: expected 64 hexadecimal digits, as sha256sum prints")
        check_deadline(deadline)
        self._deadline, self.jobs = deadline, jobs
        self.name, data = _read_model(model)
        self.sha256 = hashlib.sha256(data).hexdigest()
        if sha256 is not None and sha256.lower() != self.sha256:
            raise ModelError(
                f"model {self.name}: its SHA-256 is {self.sha256}, expected {sha256.lower()}; "
                "this is another file than the one pinned: get that one, or pin this one"
            )
        try:
            check_self_contained(data)
            self._start(data, "cpu" if precision == "bf16" else device, threads)
            self.choice = ""
            if precision != "file":
                self._change_engine(data, precision, threads)
        except UnicodeDecodeError:  # onnxruntime hands out the texts of a model as they are
            raise ModelError(f"model {self.name}: a text in it is not UTF-8; expected a file of asr-export") from None
        except ModelError as error:
            raise ModelError(f"model {self.name}: {error}") from None

    def __call__(self, frames: NDArray[np.uint8]) -> Scores:
        """Score frames of one size.

        Args:
            frames: uint8 `(N, H, W, 3)` or `(H, W, 3)`, BGR, 0..255, any size, N >= 1.

        Returns:
            Scores of the N frames (N = 1 for a single one).

        Raises:
            TypeError: not a uint8 array.
            ValueError: another shape, or an empty one.
            InferenceError: the engine failed, or gave NaN or infinity.
            DeadlineError: no answer within the deadline. Later calls work, unless the engine does not even stop (it
                is looked at between two operators): then they fail at once, with this error.
        """
        batch = _batch(frames)
        return self._in_time(partial(self._score, batch), self._deadline)

    def _score(self, batch: NDArray[np.uint8], run: Run) -> Scores:
        probability, logits = self._infer(np.ascontiguousarray(batch), run)
        reasons = tuple(nothing_to_judge(judged_window(frame, self.card.preprocess)) for frame in batch)
        verdicts: tuple[Verdict, ...] = tuple(
            "unsure" if reason else self.card.decision.verdict(float(p))
            for p, reason in zip(probability, reasons, strict=True)
        )
        return Scores(probability, logits, verdicts, reasons)

    def look(self, image: NDArray[np.uint8], choice: LookChoice = "auto") -> Look:
        """Score one picture from its centre, or from windows all over it.

        Args:
            image: uint8 `(H, W, 3)`, BGR, 0..255, any size.
            choice: `centre`, `whole`, or `auto`: what the card says is better.

        Returns:
            Probability, verdict and the windows that were looked at.

        Raises:
            TypeError, ValueError, InferenceError, DeadlineError: as a call; the deadline is that of each window.
            ConfigurationError: `whole`, of a model whose card has no figures for it.
        """
        kind = chosen_look(self.card, choice)
        picture = _single(image)
        return self._in_time(
            lambda run: look_at(lambda window: self._score(_batch(window), run), self.card, picture, kind),
            self._deadline,
        )

    def map(self, image: NDArray[np.uint8], most: int = 49) -> tuple[Window, ...]:
        """Score windows that cover a picture evenly, half a window apart, to show which parts look AI-generated.

        Args:
            image: as for `look`.
            most: largest number of windows; in larger pictures they are further apart.

        Returns:
            The windows, row by row, without those that hold nothing to judge.

        Raises:
            TypeError, ValueError, InferenceError, DeadlineError: as for `look`.
            ConfigurationError: the model resizes pictures and so has no windows, or `most` is less than 1.
        """
        return map_of(self, self.card, _single(image), most)

    def _start(self, data: bytes, device: str, threads: int | None) -> None:
        """Open the session on the first device of those wanted on which the model really runs."""
        wanted = [device]
        if device == "auto":
            has_cuda = PROVIDERS["cuda"][0] in import_onnxruntime().get_available_providers()
            wanted = ["cuda", "cpu"] if has_cuda else ["cpu"]
        threads = threads or max(1, usable_cores() // self.jobs)
        for candidate in wanted:
            try:
                self._session = open_session(data, candidate, threads, self.jobs)
                self._timed = TimedSession(self._session, self.jobs)
                self.provider = str(self._session.get_providers()[0])
                self.card = _read_card(self._session)
                _check_graph(self._session)
                # Tests compare the cards and graphs in the package, and people wait for a start.
                if candidate == "cpu" and self.name in BUILTIN:
                    return
                # On a GPU the first inference may build kernels for minutes.
                is_timed = self._deadline is not None and candidate == "cpu"
                seconds = max(_SELF_CHECK_SECONDS, self._deadline or 0.0) if is_timed else None
                self._in_time(lambda run: check_card(partial(self._infer, run=run), self.card), seconds)
                return
            except DeviceError:
                if candidate == wanted[-1]:
                    raise
            except InferenceError as error:
                if candidate == "cpu":
                    raise ModelError(f"its self-check failed: {error}") from None
                if candidate == wanted[-1]:
                    raise DeviceError(
                        f"device {candidate}: the model loads but does not run ({error}); use --device cpu"
                    ) from None

    def _change_engine(self, data: bytes, precision: str, threads: int | None) -> None:
        """Take OpenVINO in place of onnxruntime where it was asked for, or is faster."""
        # Imported here: most runs keep the file's own precision, and timing and caching load much.
        from asr_runtime.inference.engine_choice import choose_engine, open_openvino

        if precision == "bf16":
            self._session = open_openvino(data, self.card, self._session, "bf16", threads)
            self.provider = "openvino bf16"
        elif self.provider in PROVIDERS["cpu"]:
            choice = choose_engine(data, self.card, self._session, threads)
            self._session, self.choice = choice.session, choice.summary
            if choice.engine != "onnxruntime":
                self.provider = choice.engine
        else:
            self.choice = f"computed by {self.provider}: a choice is there on the CPU only"
        self._timed = TimedSession(self._session, self.jobs)

    def _in_time(self, work: Callable[[Run], T], seconds: float | None) -> T:
        """Do work that runs the session, each inference within the seconds; None: no limit."""
        return work(self._session.run) if seconds is None else self._timed.call(work, seconds)

    def _infer(self, batch: NDArray[np.uint8], run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            probability, logits = run(["probability", "logits"], {"frames": batch})
        except Exception as error:  # an engine's errors have no common root but this one
            reason = " ".join(str(error).split())
            raise InferenceError(f"{self.provider} failed on frames of shape {batch.shape}: {reason}") from None
        count = len(batch)
        if probability.shape != (count,) or logits.shape != (count, 2):
            raise InferenceError(
                f"{count} frames gave probability {probability.shape} and logits {logits.shape}, "
                f"expected ({count},) and ({count}, 2)"
            )
        if not (np.isfinite(probability).all() and np.isfinite(logits).all()):
            raise InferenceError("the model gave NaN or infinity")
        return probability, logits


def _batch(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return frames as (N, H, W, 3); raise if they have another type or shape."""
    if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
        given = frames.dtype if isinstance(frames, np.ndarray) else type(frames).__name__
        raise TypeError(f"frames: {given}, expected a uint8 array (N, H, W, 3) or (H, W, 3) of BGR pixels")
    batch = frames[np.newaxis] if frames.ndim == 3 else frames
    if batch.ndim != 4 or batch.shape[3] != 3 or batch.size == 0:
        raise ValueError(f"frames: shape {frames.shape}, expected (N, H, W, 3) or (H, W, 3), none of them 0")
    return batch


def _single(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if _batch(image) is image:
        raise ValueError(f"image: shape {image.shape}, expected one picture (H, W, 3)")
    return image


def _read_model(model: str | os.PathLike[str] | bytes | None) -> tuple[str, bytes]:
    if isinstance(model, bytes):
        return "bytes", model
    name = DEFAULT if model is None else os.fspath(model)
    path = str(builtin_path(name)) if name in BUILTIN else name
    try:
        check_regular_file(path)
        if (size := Path(path).stat().st_size) > _MAX_MODEL_BYTES:
            raise ModelError(f"model {name}: {size} bytes, expected an ONNX file of at most {_MAX_MODEL_BYTES}")
        return name, Path(path).read_bytes()
    except SourceError as error:
        raise ModelError(f"model {error}; expected an .onnx file or one of {', '.join(BUILTIN)}") from None
    except OSError as error:
        raise ModelError(f"model {name}: cannot be read ({error.strerror})") from None


def _read_card(session: Any) -> ModelCard:
    metadata = session.get_modelmeta().custom_metadata_map
    if CARD_KEY not in metadata:
        raise ModelError(f"it has no card (metadata {CARD_KEY!r}); expected a file written by asr-export")
    return ModelCard.from_json(metadata[CARD_KEY])


def _check_graph(session: Any) -> None:
    """Compare the graph's inputs and outputs with the contract."""
    inputs = {i.name: i for i in session.get_inputs()}
    outputs = {o.name: o for o in session.get_outputs()}
    if set(inputs) != {"frames"} or set(outputs) != {"probability", "logits"}:
        raise ModelError(
            f"inputs {sorted(inputs)} and outputs {sorted(outputs)}, expected ['frames'] and "
            "['logits', 'probability']; expected a file written by asr-export"
        )
    _check_tensor(inputs["frames"], "tensor(uint8)", (None, None, None, 3))
    _check_tensor(outputs["probability"], "tensor(float)", (None,))
    _check_tensor(outputs["logits"], "tensor(float)", (None, 2))


def _check_tensor(tensor: Any, kind: str, shape: tuple[int | None, ...]) -> None:
    """Compare type and shape; None is a dimension that must be dynamic (no number in the graph)."""
    sides = tuple(d if isinstance(d, int) else None for d in tensor.shape)
    if tensor.type != kind or sides != shape:
        shown = [d if d is not None else "any" for d in shape]
        raise ModelError(
            f"{tensor.name} is {tensor.type} {tensor.shape}, expected {kind} {shown}; "
            "export the checkpoint again with asr-export"
        )
