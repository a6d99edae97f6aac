"""One process of the overload test: `overload.py MODEL SECONDS URL` screens a camera.

Prints, as JSON, for each inference its time and the age of the frame by the clock in its pixels, and the summary.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import numpy as np
from cameras import age_of
from numpy.typing import NDArray

from asr_runtime import Detector, SummaryRecord, screen
from asr_runtime.inference.looking import Look, LookChoice


class WatchedDetector(Detector):
    """Notes how old every frame is when its inference begins."""

    def look(self, image: NDArray[np.uint8], choice: LookChoice = "auto") -> Look:
        ages.append((time.monotonic(), age_of(image)))
        return super().look(image, choice)


ages: list[tuple[float, float]] = []

if __name__ == "__main__":
    detector = WatchedDetector(sys.argv[1], device="cpu", threads=1)
    over = threading.Event()
    threading.Timer(float(sys.argv[2]), over.set).start()
    for record in screen(sys.argv[3:], detector, stop=over):
        if isinstance(record, SummaryRecord):
            print(json.dumps({"ages": ages, "summary": record.to_dict()}))
