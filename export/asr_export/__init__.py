"""From checkpoint to one self-contained ONNX file, and the proof that it computes the same."""

from asr_export.lowering import lower
from asr_export.onnx_file import export
from asr_export.parity import Parity, compare

__all__ = ["Parity", "compare", "export", "lower"]
