"""Sixteen-bit files for CUDA and TensorRT: the trunk in half precision, everything that measures in float32.

A Fourier magnitude, a variance or a distance overflows or loses its digits in 16 bits (65,504 is the largest number).
"""

from __future__ import annotations

import onnx

__all__ = ["halve"]

_TRUNK = frozenset({"Conv", "Relu", "LeakyRelu", "Clip", "Add", "MaxPool", "Gelu", "HardSwish"})
"""Operators that run in 16 bits: convolutions, and the others where all that they work on comes from these."""


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose convolutions, and what lies between them, compute in 16 bits.

    Args:
        model: the float32 graph; inputs and outputs keep their types.
    """
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {tensor.name for tensor in copy.graph.initializer} | {
        node.output[0] for node in copy.graph.node if node.op_type == "Constant"
    }
    trunk: set[str] = set()  # values that come out of convolutions, by way of nothing but the operators above
    blocked = []
    for number, node in enumerate(copy.graph.node):
        node.name = f"{node.op_type}_{number}"
        inputs = [name for name in node.input if name and name not in constants]
        if node.op_type == "Conv" or (node.op_type in _TRUNK and trunk.issuperset(inputs)):
            trunk.update(node.output)
        else:
            blocked.append(node.name)
    halved = ONNXModel(convert_float_to_float16(copy, keep_io_types=True, op_block_list=[], node_block_list=blocked))
    graph: onnx.ModelProto = halved.model
    _keep_outputs_whole(graph)
    halved.topological_sort()
    return graph


def _keep_outputs_whole(model: onnx.ModelProto) -> None:
    """Undo what the converter does to outputs of float32 nodes: a cast to 16 bits and back."""
    made = {name: node for node in model.graph.node for name in node.output}
    for output in model.graph.output:
        back = made[output.name]
        there = made.get(back.input[0])
        if back.op_type != "Cast" or there is None or there.op_type != "Cast":
            continue
        whole = there.input[0]
        for node in model.graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == whole or (name == output.name and node is not back):
                        names[place] = output.name
        model.graph.node.remove(back)
        if not any(there.output[0] in node.input for node in model.graph.node):
            model.graph.node.remove(there)
