"""Reads the bytes of an ONNX file, without the onnx package, and refuses a file that keeps weights in other files."""

from __future__ import annotations

from asr_runtime.errors import ModelError

__all__ = ["check_self_contained"]

# Field numbers of onnx.proto that lead to a tensor: message -> {field: message}.
_FIELDS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 100


def check_self_contained(model: bytes) -> None:
    """Refuse a model with weights in other files: onnxruntime would look for them in the working folder.

    Raises:
        ModelError: the bytes are not an ONNX file, or some tensor has external data.
    """
    try:
        has_graph = _walk(memoryview(model), "Model", 0)
    except (ValueError, IndexError):
        raise ModelError("not a whole ONNX file; export the checkpoint again with asr-export") from None
    if not has_graph:
        raise ModelError("not an ONNX file: it holds no graph; expected a file written by asr-export")


def _walk(data: memoryview, message: str, depth: int) -> bool:
    """Visit one message; returns whether it has a field that `_FIELDS` follows."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    followed = False
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        value = 0
        if wire == 0:
            value, at = _varint(data, at)
            end = at
        elif wire == 2:
            length, at = _varint(data, at)
            end = at + length
        elif wire in (1, 5):
            end = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"wire type {wire}")
        if field == 0 or end > len(data):
            raise ValueError("field beyond the end")
        if message == "Tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value)):
            raise ModelError(
                "its weights are in other files (external data), expected one self-contained file; "
                "export it again with asr-export"
            )
        if wire == 2 and (child := _FIELDS[message].get(field)):
            _walk(data[at:end], child, depth + 1)
            followed = True
        at = end
    return followed


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("varint of more than ten bytes")
