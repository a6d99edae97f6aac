"""How fast an exported detector is, against what it replaces, measured in one run."""

# Before all other imports: the first switches off the usage reports of our libraries, and libraries import Matplotlib.
from asr_runtime import caches

caches.use_own_matplotlib_cache()
