"""Score pictures with a Triton Inference Server; needs tritonclient[grpc], numpy, opencv-python, no asrnet-edge.

    python score.py --url HOST:8001 --model asrnet-lite photo.jpg ...

The server takes whole frames. This client cuts the windows of the model's card itself, as asr-screen does for a whole
picture: all are of one size, so Triton puts those of several clients into one inference.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from typing import Any

import cv2
import numpy as np
import tritonclient.grpc as triton


def windows(image: np.ndarray, card: dict[str, Any]) -> np.ndarray:
    """Return what to send of one picture, uint8 (K, H, W, 3): its windows, or all of it where there is only one."""
    size, whole = card["preprocess"]["size"], card.get("whole")
    if not whole or not whole["is_default"]:
        return image[None]
    down, right = max(0, image.shape[0] - size), max(0, image.shape[1] - size)
    corners = dict.fromkeys((math.floor(y * down), math.floor(x * right)) for y, x in whole["windows"])
    if len(corners) == 1:
        return image[None]
    return np.stack([image[top : top + size, left : left + size] for top, left in corners])


def probability(logits: np.ndarray, card: dict[str, Any]) -> float:
    """Pool the logits (K, 2) of one picture and calibrate them, as the card says.

    asr-screen also leaves out windows of one colour, which hold nothing to judge; this example does not.
    """
    rule = card["whole"] if len(logits) > 1 else card
    margins = sorted((float(ai) - float(real) for real, ai in logits), reverse=True)[: rule.get("top", 1)]
    calibration = rule["calibration"]
    log_odds = math.fsum(margins) / len(margins) / calibration["temperature"] + calibration["shift"]
    return 0.5 * (1 + math.tanh(log_odds / 2))


def main() -> int:
    """Print one JSON line per picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--model", default="asrnet-lite")
    arguments = parser.parse_args()
    client = triton.InferenceServerClient(arguments.url)
    parameters = client.get_model_config(arguments.model).config.parameters
    card = json.loads(parameters["asr.card"].string_value)
    failed = 0
    for path in arguments.pictures:
        image = cv2.imread(path, cv2.IMREAD_COLOR)
        if image is None:
            print(f"{path}: not a picture that OpenCV reads", file=sys.stderr)
            failed += 1
            continue
        batch = windows(image, card)
        frames = triton.InferInput("frames", batch.shape, "UINT8")
        frames.set_data_from_numpy(batch)
        logits = client.infer(arguments.model, [frames]).as_numpy("logits")
        print(json.dumps({"source": path, "probability": probability(logits, card)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
