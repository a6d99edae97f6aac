"""Facts about this machine that figures depend on: its processor, and the versions of the packages."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path

__all__ = ["has_bf16", "package_version", "processor_fingerprint", "processor_name", "usable_cores"]

_FEATURES = ("model name", "flags", "CPU implementer", "CPU part", "Features")
"""Fields of /proc/cpuinfo that describe a processor: the first two on x86, the others on ARM."""
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # the last on ARM


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, for example `asrnet-edge`; None if it is not installed."""
    from importlib import metadata  # 60 modules, which cost every start 20 ms and 4 MB

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Count the processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """Name the processor as the system does, for example `Intel(R) Xeon(R) Processor @ 2.10GHz`."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def processor_fingerprint() -> str:
    """Name the processor with a hash over its features: virtual machines give different processors the same name."""
    facts = _cpuinfo()
    if features := [facts[name] for name in _FEATURES if name in facts]:
        return f"{features[0]} {hashlib.sha256(' '.join(features).encode()).hexdigest()[:12]}"
    return f"{platform.machine()} {platform.processor()}"


def has_bf16() -> bool:
    """Whether the processor multiplies matrices in bfloat16 itself; where the system does not say, False."""
    facts = _cpuinfo()
    return bool(_BF16 & {*facts.get("flags", "").split(), *facts.get("Features", "").split()})


def _cpuinfo() -> dict[str, str]:
    """Return the fields of /proc/cpuinfo for the first core; empty where there is no such file."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()]
        return {name.strip(): value.strip() for name, _, value in lines}
    return {}
