"""Energy of the processor, where the machine measures it (RAPL, Linux): all cores and all processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Rapl", "joules_per_call"]

_SYSFS = Path("/sys/class/powercap")


class Rapl:
    """The energy counters of the processor packages.

    Args:
        folder: where the kernel shows them.

    Attributes:
        readable: whether there are any that this user may read.
    """

    def __init__(self, folder: Path = _SYSFS) -> None:
        # intel-rapl:0 is a package (AMD's too); intel-rapl:0:0 is a part of that package.
        self._counters = [c for c in sorted(folder.glob("intel-rapl:*/energy_uj")) if c.parent.name.count(":") == 1]
        self._limits: list[int] = []
        try:
            self._read()
            self._limits = [int((c.parent / "max_energy_range_uj").read_text()) for c in self._counters]
        except (OSError, ValueError):
            self._counters = []
        self.readable = bool(self._counters)

    def start(self) -> Callable[[], float]:
        """Begin to count; the function it returns gives the joules used since. A counter may wrap around once."""
        before = self._read()

        def joules() -> float:
            spent = zip(before, self._read(), self._limits, strict=True)
            return sum((after - first) % (limit + 1) for first, after, limit in spent) / 1e6

        return joules

    def _read(self) -> list[int]:
        return [int(counter.read_text()) for counter in self._counters]


def joules_per_call(rapl: Rapl, call: Callable[[], object], seconds: float = 1.0) -> float:
    """Repeat a call for some time; what the machine needs when idle is not taken off."""
    joules, calls, end = rapl.start(), 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        call()
        calls += 1
    return joules() / calls
