"""Eight-bit files: convolutions in integers, everything that measures in float32.

Static quantisation as pairs of QuantizeLinear and DequantizeLinear around convolutions (QDQ), weights per channel and
rounded so that outputs change least (`asr_export.rounding`), activations per tensor over the range seen on real
images. Preprocessing, Fourier transforms, statistics and head stay in float32. Some convolutions stay in float32,
too. They are chosen by measurement: each convolution is quantised alone, and those that move the margins most stay in
float32, as many as verdicts on the calibration images need. Only then is the graph judged,
once, by images that had no part in it: the best of twelve graphs on a few hundred images says little about the next
few hundred. What is left of the error in scale and offset of the margin is corrected in the calibration behind it.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from asr_export.precision_gate import Images, PrecisionGate, calibrated, float32_scores, judged, looks, margins
from asr_export.rounding import Rounded, round_kernels
from asr_runtime.contract import Calibration, ModelCard, WholeLook
from asr_runtime.errors import GateError
from asr_runtime.media.image import read_image
from asr_runtime.reports.progress import progress_bar

__all__ = ["Quantised", "quantise"]

log = logging.getLogger("asr_export")
_RANGED = 100  # images that ranges and covariances are measured on
_SWEPT = 24  # images that the sensitivity of a layer is measured on
_ACTIVATIONS = ("Clip", "Relu", "LeakyRelu")
_STEPS = 12  # graphs that are tried, from all convolutions quantised to half of them


@dataclass(frozen=True)
class Quantised:
    """An 8-bit graph.

    Attributes:
        model: from frames to probability.
        card: its calibrations are corrected for the scale and offset of the margins.
        gate: what it costs.
        sensitivity: convolution -> root mean square of how far it alone moves the margins, in float32's deviations.
    """

    model: onnx.ModelProto
    card: ModelCard
    gate: PrecisionGate
    sensitivity: dict[str, float]


def quantise(model: onnx.ModelProto, card: ModelCard, measured: Images, holdout: Images) -> Quantised:
    """Quantise as many convolutions as verdicts on the measured images allow, and judge that graph.

    Args:
        model: the float32 graph.
        card: of the 8-bit file to be; its thresholds are where verdicts flip.
        measured: images that ranges, covariances, sensitivities and corrections are measured on.
        holdout: images that the gate is judged by.

    Raises:
        GateError: even with half of the convolutions in float32 verdicts do not hold on the measured images, or
            those of the graph that was chosen do not on the hold-out images.
    """
    named = _named(model)
    ranged = measured.paths[:: max(1, len(measured.paths) // _RANGED)]
    ranges, kernels = _ranges(named, ranged), round_kernels(named, ranged)
    convolutions = [node.name for node in named.graph.node if node.op_type == "Conv"]
    swept = measured.paths[:: max(1, len(measured.paths) // _SWEPT)]
    centre = replace(card, whole=None)
    exact = margins(looks(named, centre, swept, "centres in float32"))
    sensitivity = {}
    for node in progress_bar(convolutions, "sensitivity of every layer"):
        moved = margins(looks(_quantised(named, ranges, kernels, [node]), centre, swept, node))
        sensitivity[node] = float(np.sqrt(np.mean((moved - exact) ** 2)) / exact.std())
    order = sorted(convolutions, key=lambda node: sensitivity[node])
    float32 = float32_scores(named, card, measured.paths)
    for count in np.unique(np.linspace(len(order), len(order) / 2, _STEPS).round().astype(int))[::-1]:
        graph = _quantised(named, ranges, kernels, order[:count])
        lower = looks(graph, card, measured.paths, "correction")
        corrected = _correct(graph, card, margins(lower), margins(float32.looks))
        how = f"{count} of {len(order)} convolutions in 8 bits"
        verdict = judged("int8", calibrated(lower, corrected), float32, measured, how)
        log.info("int8, on the images that it was measured on, %s", verdict)
        if verdict.passed:
            lower = looks(graph, corrected, holdout.paths, "judging int8")
            verdict = judged("int8", lower, float32_scores(named, card, holdout.paths), holdout, how)
            if not verdict.passed:
                raise GateError(f"int8: not written: {verdict}")
            return Quantised(graph, corrected, verdict, sensitivity)
    raise GateError(f"int8: not written: already on the images that it was calibrated on, {verdict}")


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose nodes all have names, by which the quantiser knows them, and whose constants are float32."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    for node in [n for n in copy.graph.node if n.op_type == "Cast" and n.input[0] in constants]:
        # An exported file stores what 16 bits hold exactly in 16 bits.
        stored = constants[node.input[0]]
        stored.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(stored).astype(np.float32), node.output[0]))
        copy.graph.node.remove(node)
    for number, node in enumerate(copy.graph.node):
        node.name = f"{node.op_type}_{number}"
    return onnx.shape_inference.infer_shapes(copy)


def _ranges(model: onnx.ModelProto, paths: Sequence[Path]) -> Any:
    """Measure the range of what goes into and comes out of every convolution."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(progress_bar(paths, "ranges"))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            path = next(self.left, None)
            return None if path is None else {"frames": read_image(path)[None]}

    with tempfile.TemporaryDirectory() as folder:
        plain, augmented = Path(folder, "plain.onnx"), Path(folder, "augmented.onnx")
        onnx.save(model, plain)
        calibrator = create_calibrator(plain, ["Conv", *_ACTIVATIONS], str(augmented), CalibrationMethod.MinMax)
        calibrator.collect_data(Reader())
        return calibrator.compute_data()


def _quantised(
    model: onnx.ModelProto, ranges: Any, kernels: Mapping[str, Rounded], nodes: Collection[str]
) -> onnx.ModelProto:
    from onnxruntime.quantization import QDQQuantizer, QuantType

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in copy.graph.initializer}
    steps = {}
    for node in copy.graph.node:
        if node.name not in nodes:
            continue
        kernel, *bias = node.input[1:]
        rounded = kernels[kernel]
        constants[kernel].CopyFrom(numpy_helper.from_array(rounded.kernel, kernel))
        if rounded.bias is not None:
            constants[bias[0]].CopyFrom(numpy_helper.from_array(rounded.bias, bias[0]))
        steps[kernel] = [{"axis": 0, "scale": step, "zero_point": 0} for step in rounded.steps]
    # An activation goes with its convolution: 8 bits are for what it lets through, not for what it cuts off.
    made = {output: node.name for node in model.graph.node if node.name in nodes for output in node.output}
    activations = [n.name for n in model.graph.node if n.op_type in _ACTIVATIONS and n.input[0] in made]
    extra = {"ActivationSymmetric": False, "WeightSymmetric": True, "TensorQuantOverrides": steps}
    quantiser = QDQQuantizer(
        copy,
        True,
        False,
        QuantType.QInt8,
        QuantType.QUInt8,
        ranges,
        [*nodes, *activations],
        [],
        ["Conv", *_ACTIVATIONS],
        extra,
    )
    with _silent():
        quantiser.quantize_model()
    graph: onnx.ModelProto = quantiser.model.model
    _keep_in_float32(graph)
    quantiser.model.topological_sort()
    return graph


def _keep_in_float32(model: onnx.ModelProto) -> None:
    """Keep onnxruntime from quantising the other convolutions after all.

    Where a float32 convolution lies between DequantizeLinear and QuantizeLinear, it puts the kernel in 8 bits when the
    file is loaded (its `WeightBiasQuantization`), with one step for all channels: five times the error of the whole
    trunk of an ASRNet-Lite. It does so only behind a DequantizeLinear that has one step for all channels, so these
    convolutions get a DequantizeLinear of their own, which names the same step for each channel.
    """
    made = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [n for n in model.graph.node if n.op_type == "Conv"]:
        source = made.get(node.input[0])
        if source is None or source.op_type != "DequantizeLinear" or node.input[1] not in constants:
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        channels = groups * constants[node.input[1]].dims[1]
        name = f"{node.name}.input"
        vectors = []
        for number, given in enumerate(source.input[1:]):
            vectors.append(f"{name}.{number}")
            values = np.broadcast_to(numpy_helper.to_array(constants[given]), channels)
            model.graph.initializer.append(numpy_helper.from_array(values.copy(), vectors[-1]))
        model.graph.node.append(
            helper.make_node("DequantizeLinear", [source.input[0], *vectors], [name], f"{name}_dequantised", axis=1)
        )
        node.input[0] = name


def _correct(
    graph: onnx.ModelProto, card: ModelCard, lower: NDArray[np.float64], exact: NDArray[np.float64]
) -> ModelCard:
    """Fit exact = scale * lower + offset, put it before the sigmoid of the graph, and return the card for it.

    With z = margin / temperature + shift, the corrected margin gives scale * z + (1 - scale) * shift +
    offset / temperature.
    """
    scale, offset = np.polyfit(lower, exact, 1).tolist()
    if not 0.5 < scale < 2:  # margins that have lost their order: nothing that a line could mend
        scale, offset = 1.0, float((exact - lower).mean())
    calibration = card.calibration
    change = offset / calibration.temperature
    (sigmoid,) = [node for node in graph.graph.node if "probability" in node.output]
    for name, value in (("scale", scale), ("offset", (1 - scale) * calibration.shift + change)):
        graph.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"correction.{name}"))
    place = list(graph.graph.node).index(sigmoid)
    multiply = helper.make_node("Mul", [sigmoid.input[0], "correction.scale"], ["correction.scaled"])
    add = helper.make_node("Add", ["correction.scaled", "correction.offset"], ["correction.z"])
    sigmoid.input[0] = "correction.z"
    graph.graph.node.insert(place, add)
    graph.graph.node.insert(place, multiply)
    after = replace(calibration, temperature=calibration.temperature / scale, shift=calibration.shift + change)
    whole = None if card.whole is None else _carried(card.whole, calibration, after)
    return replace(card, calibration=after, whole=whole)


def _carried(whole: WholeLook, before: Calibration, after: Calibration) -> WholeLook:
    """Correct the calibration of whole looks as that of the centre was corrected.

    Where margin / before.temperature + before.shift became other / after.temperature + after.shift, the mean of several
    margins is the same linear function of the mean of the others.
    """
    own = whole.calibration
    moved = replace(
        own,
        temperature=own.temperature * after.temperature / before.temperature,
        shift=own.shift + (after.shift - before.shift) * before.temperature / own.temperature,
    )
    return replace(whole, calibration=moved)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the quantiser from logging every channel whose scale it adapts to its bias."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
