"""Where onnxruntime runs each node of a file."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.inference.onnxruntime_engine import PROVIDERS, import_onnxruntime

__all__ = ["node_placement"]


def node_placement(model: Path, frames: NDArray[np.uint8], device: str = "cpu") -> dict[str, dict[str, int]]:
    """Run a file once under onnxruntime's profiler.

    Args:
        model: the exported file.
        frames: uint8 (N, H, W, 3).
        device: `cpu`, `cuda` or `tensorrt`.

    Returns:
        Provider -> operator -> nodes, after onnxruntime has fused what it fuses; most frequent first.
    """
    ort = import_onnxruntime()
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        options.log_severity_level = 4
        session = ort.InferenceSession(str(model), options, providers=list(PROVIDERS[device]))
        session.run(None, {"frames": frames})
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_text())
    # One event per node and run; a node's parts (fences) have other names.
    ran = {e["name"]: e["args"] for e in events if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")}
    placed: dict[str, Counter[str]] = {}
    for facts in ran.values():
        placed.setdefault(str(facts["provider"]), Counter())[str(facts["op_name"])] += 1
    ranked = sorted(placed.items(), key=lambda item: -item[1].total())
    return {provider: dict(operators.most_common()) for provider, operators in ranked}
