"""Makes docs/pictures/whole-picture.jpg: a photo with a generated part pasted into it, as `--evidence` shows it.

    python docs/pictures/whole_picture.py

The pictures are those of runtime/examples, the model is the built-in one.
"""

from pathlib import Path

import cv2

from asr_runtime import Detector, read_image
from asr_runtime.reports.evidence import draw_evidence

_EXAMPLES = Path(__file__).parents[2] / "runtime" / "examples"


def main() -> None:
    """Paste, score, draw, write."""
    detector = Detector(device="cpu")
    image = read_image(_EXAMPLES / "real" / "coffee.png")
    image[80:320, 340:580] = read_image(_EXAMPLES / "ai" / "uvit-1.webp")[:240, :240]
    look = detector.look(image)
    drawn = draw_evidence(image, detector.map(image), look.verdict, look.probability)
    cv2.imwrite(str(Path(__file__).with_name("whole-picture.jpg")), drawn, [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
