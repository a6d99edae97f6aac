"""A file that takes more memory than there is costs that file, in the process of the command too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from runtime_samples import black_png, encoded, environment, shade

# The limit is set when all is loaded; then every file is decoded as asr-screen decodes it.
LIMITED = """
import json, resource, sys
from pathlib import Path
import cv2
from asr_runtime.sources.expand import Source
from asr_runtime.sources.steps import decode_here
bare = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (bare + (300 << 20), resource.RLIM_INFINITY))
for path in sys.argv[1:]:
    for step in decode_here(Source(path, "image"), None):
        print(json.dumps([type(step.error).__name__, str(step.error or "")]))
"""


def test_pictures_that_take_more_memory_than_there_is_are_errors(tmp_path: Path) -> None:
    pictures = {
        "black.png": black_png(16_000),
        "deep.png": encoded(np.full((9000, 9000), 40_000, np.uint16), ".png"),
        "large.jpg": encoded(np.zeros((12_000, 12_000, 3), np.uint8), ".jpg"),
        "small.jpg": encoded(shade(90), ".jpg"),
    }
    for name, data in pictures.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in pictures)]
    done = subprocess.run(command, env=environment(), capture_output=True, check=True, timeout=120)
    *large, small = map(json.loads, done.stdout.splitlines())
    for name, (kind, message) in zip(pictures, large, strict=False):
        assert (kind, message) == (
            "DecodeError",
            f"{tmp_path / name}: decoding takes more memory than there is; scale it down",
        )
    assert small == ["NoneType", ""]
