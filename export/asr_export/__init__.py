"""From checkpoint to one self-contained ONNX file, and the proof that it computes the same."""

# Before all other imports: the first switches off the usage reports of our libraries, and libraries import Matplotlib.
from asr_runtime import caches

caches.use_own_matplotlib_cache()
