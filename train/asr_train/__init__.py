"""Training, evaluation and calibration of detectors."""

# Before all other imports: the first switches off the usage reports of our libraries, and libraries import Matplotlib.
from asr_runtime import caches

caches.use_own_matplotlib_cache()
