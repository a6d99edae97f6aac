"""One process of the fuzz tests: `fuzz_batch.py images|videos|models COUNT FOLDER`, prints the outcomes as JSON.

It is a separate process, so that a crash and its memory can be measured. Input number N is the same in every run.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asr_runtime import Detector, VideoFile, decode_image
from asr_runtime.errors import AsrError


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Damage bytes in one of the ways in which files break, by accident or on purpose."""
    out = bytearray(data)
    start = rng.choice((0, 0, rng.randrange(len(out))))  # damage to headers matters most
    reach = rng.choice((64, 512, len(out)))
    end = min(len(out), start + reach)
    kind = rng.randrange(6)
    if kind <= 1:
        for _ in range(rng.randint(1, 12)):
            out[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    elif kind == 2:  # numbers at their limits
        at, width = rng.randrange(start, end), rng.choice((1, 2, 4, 8))
        out[at : at + width] = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * width
    elif kind == 3:
        del out[start : start + rng.randint(1, 2000)]
    elif kind == 4:
        piece = out[rng.randrange(len(out)) :][: rng.randint(1, 2000)]
        out[start:start] = piece
    else:
        out[start : start + 200] = rng.randbytes(200)
    return bytes(out)


def score_image(data: bytes, detector: Detector) -> str:
    detector(decode_image(data, "image"))
    return "scored"


def score_video(data: bytes, detector: Detector, path: Path) -> str:
    path.write_bytes(data)
    video = VideoFile(path)
    for frame in video:
        detector(frame.image)
    return "partial" if video.damage() else "scored"


def score_model(data: bytes) -> str:
    Detector(data, device="cpu", threads=1)(np.zeros((48, 64, 3), np.uint8))
    return "scored"


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def main(kind: str, count: int, folder: Path) -> None:
    seeds = sorted(path for path in folder.iterdir() if path.is_file())
    detector = Detector(folder.parent / "model.onnx", device="cpu", threads=1)
    outcomes: Counter[str] = Counter()
    slowest, slowest_number = 0.0, 0
    for number in range(count):
        seed = seeds[number % len(seeds)]
        data = mutated(seed.read_bytes(), random.Random(number))
        attempts: dict[str, Callable[[], str]] = {
            "images": lambda data=data: score_image(data, detector),
            "videos": lambda data=data, name=seed.suffix: score_video(data, detector, folder.parent / f"mutated{name}"),
            "models": lambda data=data: score_model(data),
        }
        print(number, file=sys.stderr, flush=True)  # after a crash the last line is the number of the input
        started = time.perf_counter()
        try:
            outcomes[attempts[kind]()] += 1
        except AsrError as error:
            outcomes[type(error).__name__ if "\n" not in str(error) else "error of several lines"] += 1
        seconds = time.perf_counter() - started
        if seconds > slowest:
            slowest, slowest_number = seconds, number
    print(json.dumps({"outcomes": outcomes, "slowest": slowest, "number": slowest_number, "peak": peak_mb()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
