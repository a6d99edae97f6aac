"""Times of engines on this machine, in the user's cache folder under a key of everything that they depend on.

A library for the place of that folder (platformdirs) would be one more package on every device, for one line.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asr_runtime.caches import cache_folder
from asr_runtime.errors import OutputError
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime
from asr_runtime.machine import package_version, processor_fingerprint, usable_cores
from asr_runtime.whole_file import write_whole

__all__ = ["Times", "fingerprint", "keep_times", "kept_times", "times_path"]


@dataclass(frozen=True, slots=True)
class Times:
    """Times of engines, and why some were not timed.

    Attributes:
        milliseconds: engine -> median of one frame, the most trusted engine first.
        left_out: engine -> why it was not timed.
    """

    milliseconds: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)


def fingerprint(model: bytes, threads: int | None) -> dict[str, Any]:
    """Return everything that the times depend on."""
    return {
        "model": hashlib.sha256(model).hexdigest(),
        "processor": processor_fingerprint(),
        "cores": usable_cores(),
        "threads": threads or usable_cores(),
        "onnxruntime": str(import_onnxruntime().__version__),
        "openvino": package_version("openvino"),
        "asrnet-edge": package_version("asrnet-edge"),
    }


def times_path(of: Mapping[str, Any]) -> Path:
    """Name the file of a fingerprint.

    Raises:
        RuntimeError: the user has no home.
    """
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder("engines") / f"{name}.json"


def kept_times(of: Mapping[str, Any], engines: Collection[str]) -> Times | None:
    """Return the cached times of these engines; None if there are none, or the file is damaged or of another key."""
    try:
        content = json.loads(times_path(of).read_bytes())
        left_out = {engine: str(why) for engine, why in content["left_out"].items() if engine in engines}
        times = {engine: float(content["milliseconds"][engine]) for engine in engines if engine not in left_out}
        usable = content["fingerprint"] == of and times and all(0 < value < math.inf for value in times.values())
    except (OSError, RuntimeError, RecursionError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return Times(times, left_out) if usable else None


def keep_times(of: Mapping[str, Any], times: Times) -> str:
    """Write the times to the cache. Return where they are, or why they were not written, in words."""
    try:
        path = times_path(of)
        write_whole(path, json.dumps({"fingerprint": of, **asdict(times)}, indent=2) + "\n")
    except (OutputError, RuntimeError) as error:
        return f"not kept ({error})"
    return f"kept in {path}"
