"""Lower precision of a graph or of an exported file: 8-bit convolutions, or the right to compute in bf16."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import onnx

from asr_export.answers import answers, onnxruntime
from asr_export.parity import judge, tolerance
from asr_export.parity_inputs import adversarial_frames, packaged_images, real_frames
from asr_export.precision_gate import PrecisionGate, gate_bf16, labelled_halves
from asr_export.quantise import quantise
from asr_models import create_model
from asr_runtime import Detector
from asr_runtime.contract import CARD_KEY, ModelCard
from asr_runtime.errors import ConfigurationError, GateError
from asr_runtime.whole_file import write_whole

__all__ = ["Precision", "gate_of", "lower_exported", "lowered", "with_card"]

Precision = Literal["fp32", "bf16", "int8"]


def lowered(
    model: onnx.ModelProto, card: ModelCard, precision: Precision, labelled_images: Path
) -> tuple[onnx.ModelProto, ModelCard]:
    """Lower the precision of a float32 graph, for `int8`, or judge its computation in `bf16`.

    Args:
        model: the graph; it is not changed.
        card: of the file to be, without the figures of its parity.
        precision: `int8` or `bf16`.
        labelled_images: folder of images that it is judged by (`precision_gate.labelled_halves`).

    Returns:
        The graph, and the card with the figures of the gate.

    Raises:
        GateError: the lower precision costs too much.
        ConfigurationError: too few labelled images.
        DependencyError: OpenVINO is not installed, for `bf16`.
    """
    measured, holdout = labelled_halves(labelled_images)
    reduced = model
    more: dict[str, Any] = {}
    if precision == "int8":
        quantised = quantise(model, card, measured, holdout)
        reduced, card, passed = quantised.model, quantised.card, quantised.gate
        more = {"sensitivity": quantised.sensitivity}
    else:
        passed = gate_bf16(model, holdout, card)
    if not passed.passed:
        raise GateError(f"{precision}: not written: {passed}")
    metrics = {**card.metrics, f"{precision} against fp32": {**passed.to_dict(), **more}}
    return reduced, replace(card, metrics=metrics)


def lower_exported(exported: Path, output: Path, precision: Precision, labelled_images: Path) -> ModelCard:
    """Write an exported float32 file again, in a lower precision or with the right to be computed in one.

    For `bf16` the graph stays as it is. An `int8` file is compared with the float32 file in place of PyTorch.

    Args:
        exported: a file of `export`.
        output: the file to write; may be `exported`.
        precision: `int8` or `bf16`.
        labelled_images: as for `lowered`.

    Returns:
        The card that is in the new file.

    Raises:
        ConfigurationError: the file is not in float32, or there are too few labelled images.
        GateError: the lower precision costs too much; nothing is written.
        ModelError: the file is refused.
        DependencyError: OpenVINO is not installed, for `bf16`.
        OutputError: the file cannot be written.
    """
    detector = Detector(exported, device="cpu")
    if detector.card.precision != "fp32":
        raise ConfigurationError(f"{exported}: is in {detector.card.precision}; expected a float32 file")
    card = detector.card if precision == "bf16" else replace(detector.card, precision="int8")
    model, card = lowered(onnx.load(exported), card, precision, labelled_images)
    if precision == "int8":
        batches = [*real_frames(packaged_images()), *adversarial_frames(card.preprocess.size)]
        exact, lower = (
            answers(onnxruntime(d), batches) for d in (detector, Detector(with_card(model, card), device="cpu"))
        )
        allowed = tolerance(create_model(card.name, **card.options), "int8")
        parity = judge(lower, exact, card, allowed).to_dict()
        card = replace(card, parity={**parity, "reference": "the float32 file, in onnxruntime"})
    write_whole(output, with_card(model, card), what="model")
    return card


def gate_of(card: ModelCard, precision: Precision) -> str:
    """Return what the gate of a lower precision measured, as one line."""
    figures = card.metrics[f"{precision} against fp32"]
    return str(PrecisionGate(**{name: figures[name] for name in PrecisionGate.__dataclass_fields__}))


def with_card(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the file: the graph with the card in it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.helper.set_model_props(copy, {CARD_KEY: card.to_json()})
    data: bytes = copy.SerializeToString()
    return data
