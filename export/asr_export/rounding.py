"""Kernels on an 8-bit grid, rounded so that what a convolution puts out changes least.

Rounding every weight to the nearest step ignores that the inputs of a convolution vary together: pixels that are
neighbours are nearly alike, so nine errors that do not cancel move the output everywhere by the same amount. With H,
the covariance of a convolution's inputs over real images, an error e of a kernel costs e H e'. Weights are rounded
one after another, and the weights not yet rounded make up for each error (Frantar et al. 2023, "GPTQ: accurate
post-training quantization for generative pre-trained transformers"); what is left of the mean goes into the bias
(Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction").

Shape legend: G groups of a convolution, O outputs and K weights of one group's kernels, L places of a map, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.media.image import read_image
from asr_runtime.reports.progress import progress_bar

__all__ = ["Rounded", "round_kernels"]

Array = NDArray[np.float64]

_LARGEST = 127  # of symmetric 8-bit weights
_DAMPING = 1e-3  # of H's mean diagonal, added to it: inputs that never vary on these images may on others


@dataclass(frozen=True)
class Rounded:
    """One convolution's kernels in 8 bits.

    Attributes:
        kernel: float32, shaped as the original; whole multiples, -127 to 127, of its channel's step.
        bias: float32 (channels out,), corrected; None if the convolution has none.
        steps: float32 (channels out,).
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    steps: NDArray[np.float32]


def round_kernels(model: onnx.ModelProto, paths: Sequence[Path]) -> dict[str, Rounded]:
    """Round the kernels of all convolutions.

    Args:
        model: the float32 graph, from `frames`.
        paths: images that covariances are measured on.

    Returns:
        Name of a kernel in the graph -> what to put in its place.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    moments = _moments(model, {name: list(tensor.dims) for name, tensor in constants.items()}, paths)
    biases = {node.input[1]: node.input[2] for node in _convolutions(model) if len(node.input) > 2}
    kernels = {}
    for name, (groups, covariance, mean) in moments.items():
        kernel = numpy_helper.to_array(constants[name])
        weights = kernel.astype(np.float64).reshape(groups, kernel.shape[0] // groups, -1)
        rounded, step = _round(weights, covariance)
        bias = None
        if name in biases:
            moved = ((weights - rounded) @ mean[:, :, None]).reshape(-1)
            bias = (numpy_helper.to_array(constants[biases[name]]) + moved).astype(np.float32)
        steps = step.reshape(-1).astype(np.float32)
        kernels[name] = Rounded(rounded.reshape(kernel.shape).astype(np.float32), bias, steps)
    return kernels


def _convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "Conv"]


def _moments(
    model: onnx.ModelProto, shapes: dict[str, list[int]], paths: Sequence[Path]
) -> dict[str, tuple[int, Array, Array]]:
    """Measure, for every kernel, groups and covariance (G, K, K) and mean (G, K) of what it is multiplied with."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    nodes = _convolutions(probed)
    inputs = list(dict.fromkeys(node.input[0] for node in nodes))
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inputs)
    session = open_session(probed.SerializeToString(), "cpu")
    sums: dict[str, list[Any]] = {}
    for path in progress_bar(paths, "covariances"):
        maps = dict(zip(inputs, session.run(inputs, {"frames": read_image(path)[None]}), strict=True))
        for node in nodes:
            patches = _patches(maps[node.input[0]][0], node, shapes[node.input[1]])
            new = (patches @ patches.swapaxes(1, 2), patches.sum(axis=2), patches.shape[2])
            total = sums.setdefault(node.input[1], [len(patches), 0.0, 0.0, 0])
            for place, value in enumerate(new, start=1):
                total[place] = total[place] + np.asarray(value, np.float64)
    moments = {}
    for name, (groups, products, sums_of_inputs, count) in sums.items():
        mean = sums_of_inputs / count
        moments[name] = (groups, products / count - mean[:, :, None] * mean[:, None], mean)
    return moments


def _patches(maps: NDArray[np.float32], node: onnx.NodeProto, shape: Sequence[int]) -> NDArray[np.float32]:
    """(C, H, W) -> (G, K, L): what each output of a convolution is made of."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    groups, pads = given.get("group", 1), given.get("pads", [0, 0, 0, 0])
    (down, right), (below, beside) = given.get("strides", [1, 1]), given.get("dilations", [1, 1])
    rows, columns = shape[2:]
    maps = np.pad(maps, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    reach = ((rows - 1) * below + 1, (columns - 1) * beside + 1)
    windows = np.lib.stride_tricks.sliding_window_view(maps, reach, axis=(1, 2))
    windows = windows[:, ::down, ::right, ::below, ::beside].transpose(0, 3, 4, 1, 2)  # (C, rows, columns, h, w)
    return windows.reshape(groups, shape[1] * rows * columns, -1)


def _round(weights: Array, covariance: Array) -> tuple[Array, Array]:
    """Round weights (G, O, K) under covariances (G, K, K); return them and the steps (G, O) of their grids."""
    step = np.maximum(np.abs(weights).max(axis=2) / _LARGEST, 1e-12)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    # The inputs that vary most come first, while many weights are left to make up for the errors.
    order = np.argsort(-variance, axis=1, kind="stable")
    left = np.take_along_axis(weights, order[:, None], axis=2)
    ordered = np.take_along_axis(covariance, order[:, :, None], axis=1)
    ordered = np.take_along_axis(ordered, order[:, None], axis=2)
    damping = _DAMPING * variance.mean(axis=1) + 1e-12
    ordered = ordered + damping[:, None, None] * np.eye(ordered.shape[1])
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).swapaxes(1, 2)
    rounded = np.empty_like(left)
    for k in range(left.shape[2]):
        multiples = np.clip(np.rint(left[:, :, k] / step), -_LARGEST, _LARGEST)
        rounded[:, :, k] = multiples * step
        error = (left[:, :, k] - rounded[:, :, k]) / upper[:, k, k, None]
        left[:, :, k + 1 :] -= error[:, :, None] * upper[:, None, k, k + 1 :]
    result = np.empty_like(rounded)
    np.put_along_axis(result, np.broadcast_to(order[:, None], result.shape), rounded, axis=2)
    return result, step
