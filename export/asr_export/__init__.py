"""From checkpoint to one self-contained ONNX file, and the proof that it computes the same."""
