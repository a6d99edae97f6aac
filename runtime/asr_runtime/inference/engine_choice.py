"""Which engine computes a file fastest on this machine: timed once, cached for the user, and printed.

Only engines that may be used are timed: onnxruntime always; OpenVINO in float32, which is as exact, for a float32 file;
OpenVINO in bf16 where the card says that the file passed its gate.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import ModelCard
from asr_runtime.errors import AsrError, DeviceError, ModelError
from asr_runtime.inference.engine_times import Times, fingerprint, keep_times, kept_times, times_path
from asr_runtime.inference.openvino_engine import OpenVinoSession
from asr_runtime.machine import package_version

__all__ = ["BF16_GATE", "Choice", "choose_engine", "open_openvino", "passed_bf16_gate"]

BF16_GATE = "bf16 against fp32"
"""Key of the gate's figures among the metrics of a card; `passed` is one of them."""

_WORTH_IT = 0.95  # of the time of a more trusted engine: a smaller gain is within the noise of timing
_SECONDS = 1.0
_FEWEST_ROUNDS = 5
_WARM_UP = 2
_REST = 0.003  # seconds before a run: threads of the engine before it wait busily for more work
_DISAGREEMENT = {"fp32": 1e-3, "bf16": 0.25}  # of a logit, relative to the largest or to 1


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen.

    Attributes:
        engine: `onnxruntime`, `openvino fp32` or `openvino bf16`.
        session: its session.
        summary: which engine was chosen and why, one line.
    """

    engine: str
    session: Any
    summary: str


def passed_bf16_gate(card: ModelCard) -> bool:
    """Whether `asr-export --precision bf16` has measured that bf16 costs this file next to nothing."""
    figures = card.metrics.get(BF16_GATE)
    return card.precision == "fp32" and isinstance(figures, Mapping) and figures.get("passed") is True


def open_openvino(
    model: bytes, card: ModelCard, reference: Any, precision: Literal["fp32", "bf16"], threads: int | None
) -> OpenVinoSession:
    """Start OpenVINO and make sure that it computes what onnxruntime does.

    Args:
        model: the file.
        card: the file's.
        reference: session of the file in onnxruntime.
        precision: `bf16` only for a file that passed its gate.
        threads: of one inference; None: every usable core.

    Raises:
        DependencyError: OpenVINO is missing or broken.
        DeviceError: it does not compute in this precision on this processor.
        ModelError: the gate was not passed, OpenVINO cannot load the file, or computes something else.
    """
    if precision == "bf16" and not passed_bf16_gate(card):
        raise ModelError(
            "its card has no passed gate for bf16; asr-export X.onnx --precision bf16 measures what it costs and "
            "writes that into the card, or use --precision file"
        )
    session = OpenVinoSession(model, precision, threads)
    (expected,) = reference.run(["logits"], {"frames": _frame(card)})
    try:
        (logits,) = session.run(["logits"], {"frames": _frame(card)})
    except RuntimeError as error:
        raise ModelError(f"OpenVINO loads it but does not run it ({error}); use --precision file") from None
    scale = max(1.0, float(np.abs(expected).max()))
    if logits.shape != expected.shape or not np.abs(logits - expected).max() <= _DISAGREEMENT[precision] * scale:
        raise ModelError(
            f"OpenVINO in {precision} gives the logits {logits.tolist()} where onnxruntime gives {expected.tolist()}; "
            "use --precision file"
        )
    return session


def choose_engine(model: bytes, card: ModelCard, reference: Any, threads: int | None) -> Choice:
    """Choose the fastest engine that may compute a file; a less trusted one only where it is 5% faster.

    The first call for a file, a machine, the versions of both engines and a number of threads takes about two seconds;
    later ones find its times in `$XDG_CACHE_HOME/asrnet-edge/engines` (or below `~/.cache`).

    Args:
        model: the file.
        card: the file's.
        reference: session of the file in onnxruntime, on the CPU.
        threads: of one inference; None: every usable core.
    """
    candidates, left_out = _candidates(card)
    if len(candidates) == 1:
        return Choice(
            "onnxruntime", reference, _summary("onnxruntime", Times({}, left_out), card, "nothing to choose from")
        )
    key = fingerprint(model, threads)
    if cached := kept_times(key, candidates):
        engine = _fastest(cached.milliseconds)
        # An engine that does not start any more is reported below.
        with contextlib.suppress(AsrError):
            precision = candidates[engine]
            is_reference = engine == "onnxruntime"
            session = reference if is_reference else open_openvino(model, card, reference, precision, threads)
            everything = Times(cached.milliseconds, {**left_out, **cached.left_out})
            return Choice(
                engine, session, _summary(engine, everything, card, f"timed earlier, kept in {times_path(key)}")
            )
    sessions: dict[str, Any] = {"onnxruntime": reference}
    failed: dict[str, AsrError] = {}
    for engine, precision in list(candidates.items())[1:]:
        try:
            sessions[engine] = open_openvino(model, card, reference, precision, threads)
        except AsrError as error:
            failed[engine] = error
    reasons = {engine: str(error) for engine, error in failed.items()}
    times = Times(_timed(sessions, _frame(card)), reasons)
    # What a processor cannot do stays so; a package that is broken, or computes something else, may be mended.
    lasting = all(isinstance(error, DeviceError) for error in failed.values())
    where = keep_times(key, times) if lasting else "not kept"
    engine = _fastest(times.milliseconds)
    everything = Times(times.milliseconds, {**left_out, **reasons})
    return Choice(engine, sessions[engine], _summary(engine, everything, card, where))


def _candidates(card: ModelCard) -> tuple[dict[str, Literal["fp32", "bf16"]], dict[str, str]]:
    """Return engine -> its precision, the most trusted first, and engine -> why it is left out."""
    candidates: dict[str, Literal["fp32", "bf16"]] = {"onnxruntime": "fp32"}
    if card.precision != "fp32":
        return candidates, {"openvino": f"{card.precision} was judged in onnxruntime"}
    if package_version("openvino") is None:
        return candidates, {"openvino": "not installed, pip install 'asrnet-edge[openvino]'"}
    candidates["openvino fp32"] = "fp32"
    if not passed_bf16_gate(card):
        return candidates, {"openvino bf16": "the card has no passed gate for it"}
    return {**candidates, "openvino bf16": "bf16"}, {}


def _frame(card: ModelCard) -> NDArray[np.uint8]:
    """Return noise of the size that the network sees, (1, S, S, 3)."""
    side = card.preprocess.resize or card.preprocess.size
    return np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)


def _timed(sessions: Mapping[str, Any], frame: NDArray[np.uint8]) -> dict[str, float]:
    """Run the engines in turns; returns the median milliseconds of each."""
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    rounds, end = 0, math.inf
    while rounds < _WARM_UP + _FEWEST_ROUNDS or time.perf_counter() < end:
        for name, session in sessions.items():
            time.sleep(_REST)
            started = time.perf_counter()
            session.run(["probability", "logits"], {"frames": frame})
            samples[name].append((time.perf_counter() - started) * 1000)
        rounds += 1
        if rounds == _WARM_UP:
            end = time.perf_counter() + _SECONDS
    return {name: round(statistics.median(times[_WARM_UP:]), 3) for name, times in samples.items()}


def _fastest(times: Mapping[str, float]) -> str:
    chosen, *others = times
    for engine in others:
        if times[engine] < _WORTH_IT * times[chosen]:
            chosen = engine
    return chosen


def _summary(engine: str, times: Times, card: ModelCard, where: str) -> str:
    def shown(name: str) -> str:
        named = f"onnxruntime {card.precision}" if name == "onnxruntime" else name
        return f"{named}: {timed[name]:.1f} ms" if timed else named

    timed = times.milliseconds
    parts = [f"computed by {shown(engine)}", *(shown(name) for name in timed if name != engine)]
    if timed and min(timed.values()) < timed[engine]:
        parts.append(f"a gain below {1 - _WORTH_IT:.0%} is within noise")
    parts += [f"{name} left out: {why}" for name, why in times.left_out.items()]
    return " ".join("; ".join([*parts, where]).split())
