"""One self-contained ONNX file out of a checkpoint: graph, weights, card."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch

from asr_export.lower_precision import Precision, lowered, with_card
from asr_export.lowering import lower
from asr_export.parity import Parity, compare, tolerance
from asr_export.parity_inputs import adversarial_frames, packaged_images, real_frames
from asr_export.stages import STAGE, Staged, hide_stages
from asr_export.whole import WHOLE_TOLERANCE, whole_difference
from asr_models import Checkpoint, Deployed
from asr_runtime import Detector
from asr_runtime.contract import (
    Calibration,
    Decision,
    ModelCard,
    OperatingPoint,
    Preprocess,
    VideoRule,
    WholeLook,
    from_checkpoint,
)
from asr_runtime.errors import ConfigurationError, GateError, ModelError
from asr_runtime.machine import package_version
from asr_runtime.whole_file import write_whole

__all__ = ["export"]

_OPSET = 20
_WORTH_HALVING = 64  # values


def export(
    checkpoint: Checkpoint,
    path: Path,
    *,
    fft: Literal["matmul", "dft"] = "matmul",
    precision: Precision = "fp32",
    labelled_images: Path | None = None,
    images: Path | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Write a checkpoint as one ONNX file: `frames` uint8 (N, H, W, 3) -> `probability` (N,), `logits` (N, 2).

    Args:
        checkpoint: network, preprocessing, calibration.
        path: the file; it appears only if it computes what PyTorch computes.
        precision: `int8` convolutions, or a float32 file that the runtime may compute in `bf16`; each passes a gate on
            labelled images, whose figures are in the card.
        labelled_images: folder of those images (`calibration_images`).
        fft: `matmul` writes Fourier transforms as matrix products; `dft` keeps the native operator, to compare with.
        images: folder of images for the parity check; None takes those inside this package.
        metrics: results for the card, each under a key that names its test set and protocol.

    Returns:
        The card that is in the file, parity figures included.

    Raises:
        GateError: the file does not compute what PyTorch computes, or lower precision costs too much; no file is left.
        ConfigurationError: no, or too few, calibration images for a lower precision.
        ModelError: the checkpoint's calibration or thresholds are refused.
        DependencyError: OpenVINO is not installed, for `bf16`.
        OutputError: the file cannot be written.
    """
    card = _card(checkpoint, fft, "fp32" if precision == "bf16" else precision, metrics or {})
    deployed = checkpoint.deployed()
    model = _to_onnx(lower(deployed) if fft == "matmul" else deployed)
    if precision != "fp32":
        if labelled_images is None:
            raise ConfigurationError(f"precision {precision}: expected a folder of labelled images to judge it by")
        model, card = lowered(model, card, precision, labelled_images)
    _store_halves(model)
    onnx.checker.check_model(model, full_check=True)
    detector, folder = Detector(with_card(model, card), device="cpu"), images or packaged_images()
    parity = _check(deployed, detector, folder, card.precision)
    if card.precision == "fp32" and not parity.passed:
        raise GateError(f"{path}: not written: the exported graph is not what PyTorch computes: {parity}")
    card = replace(card, parity={**parity.to_dict(), **_check_whole(deployed, detector, folder, path)})
    write_whole(path, with_card(model, card))
    return card


def _to_onnx(deployed: Deployed) -> onnx.ModelProto:
    # Two frames of unequal sides: a batch of one, or equal sides, would be taken for constants.
    example = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    staged = Staged(deployed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own deprecations
        program = torch.onnx.export(
            staged,
            (example,),
            dynamo=True,
            input_names=["frames"],
            output_names=["probability", "logits", *(STAGE + name for name in staged.names)],
            dynamic_shapes=({0: "N", 1: "H", 2: "W"},),
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    hide_stages(model)
    del model.graph.value_info[:]  # shapes of inner tensors, under names that only the exporter knows
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of this machine
        node.doc_string = ""
    del model.metadata_props[:]
    model.graph.name = "asrnet-edge"
    model.doc_string = "frames (uint8 BGR, N x H x W x 3) -> probability of being AI-generated, logits [real, ai]"
    model.producer_name, model.producer_version = "asrnet-edge", package_version("asrnet-edge") or ""
    return model


def _store_halves(model: onnx.ModelProto) -> None:
    """Store large float32 constants that 16 bits hold exactly in 16 bits, cast back when the file is loaded."""
    for tensor in list(model.graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < _WORTH_HALVING or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
        cast = onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
        model.graph.node.insert(0, cast)


def _card(
    checkpoint: Checkpoint,
    fft: Literal["matmul", "dft"],
    precision: Literal["fp32", "int8"],
    metrics: Mapping[str, Any],
) -> ModelCard:
    packages = ("asrnet-edge", "torch", "torchvision", "onnx", "onnxscript")
    try:
        return ModelCard(
            name=checkpoint.name,
            options=json.loads(json.dumps(dict(checkpoint.options))),
            preprocess=Preprocess(**checkpoint.preprocess),
            calibration=from_checkpoint(Calibration, checkpoint.calibration, checkpoint.name),
            decision=from_checkpoint(Decision, checkpoint.decision, checkpoint.name),
            operating_points=tuple(
                from_checkpoint(OperatingPoint, point, checkpoint.name) for point in checkpoint.operating_points
            ),
            video=from_checkpoint(VideoRule, checkpoint.video, checkpoint.name) if checkpoint.video else None,
            whole=from_checkpoint(WholeLook, checkpoint.whole, checkpoint.name) if checkpoint.whole else None,
            training=checkpoint.training,
            metrics=metrics,
            checkpoint_sha256=checkpoint.sha256,
            tool_versions={name: package_version(name) or "not installed" for name in packages},
            fft=fft,
            precision=precision,
        )
    except ValueError as error:
        raise ModelError(f"checkpoint {checkpoint.name}: {error}") from None


def _check(deployed: Deployed, detector: Detector, images: Path, precision: str) -> Parity:
    batches = [*real_frames(images), *adversarial_frames(deployed.preprocess.size)]
    return compare(deployed, detector, batches, tolerance(deployed.network, precision))


def _check_whole(deployed: Deployed, detector: Detector, images: Path, path: Path) -> dict[str, float]:
    """Compare whole looks at real pictures with PyTorch's; nothing for a card without them.

    Raises:
        GateError: a float32 file gives another probability.
    """
    if detector.card.whole is None:
        return {}
    worst = whole_difference(deployed, detector, images)
    if detector.card.precision == "fp32" and not worst <= WHOLE_TOLERANCE:
        raise GateError(
            f"{path}: not written: a whole look differs from PyTorch's by {worst:.1e} in probability, allowed "
            f"{WHOLE_TOLERANCE:.0e}"
        )
    return {"whole_probability_absolute": worst}
