"""The results of the suite: one JSON file for each kind of machine, and which results may be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from asr_bench.figures import Figure
from asr_bench.suite_parts import PARTS
from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import processor_fingerprint, usable_cores
from asr_runtime.whole_file import write_whole

__all__ = ["PartResult", "Suite", "earlier_suite", "machine_kind", "machine_name", "read_suite"]


@dataclass(frozen=True)
class PartResult:
    """What one part gave.

    Attributes:
        says: what it measures, in words.
        command: one round.
        date: of the last round, UTC.
        versions: of the packages that decide.
        load: of the machine when each round began, over one minute.
        seconds: of each round.
        joules: of the whole processor in each round; None where the machine does not measure energy.
        figures: with the samples of all rounds.
        problem: why it has no figures; empty if it has.
    """

    says: str
    command: str
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    load: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    joules: tuple[float, ...] | None = None
    figures: tuple[Figure, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Suite:
    """The results of one kind of machine.

    Attributes:
        machine: processor, a hash of its features, and cores.
        parts: name -> result.
    """

    machine: str
    parts: Mapping[str, PartResult]

    def write(self, folder: Path) -> Path:
        """Write `KIND.json`; the parts that a file of the same machine has and this suite lacks stay in it.

        Returns:
            The path of the file.

        Raises:
            OutputError: it cannot be written.
        """
        path = folder / f"{machine_kind(self.machine)}.json"
        parts = dict(self.parts)
        if path.exists():
            parts = {**read_suite(path).parts, **parts}
        content = {
            "machine": self.machine,
            "parts": {name: asdict(parts[name]) for name in sorted(parts, key=list(PARTS).index)},
        }
        write_whole(path, json.dumps(content, indent=1) + "\n", what="results")
        return path


def machine_kind(machine: str = "") -> str:
    """Return the name of a kind of machine as a file name; without an argument that of this one."""
    return re.sub(r"\W+", "-", machine or machine_name()).strip("-").lower()


def read_suite(path: Path) -> Suite:
    """Read the results of an earlier suite.

    Raises:
        ConfigurationError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Suite(content["machine"], {name: _result(part) for name, part in content["parts"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path}: expected a file that asr-bench --suite -o DIR wrote") from None


def _result(part: dict[str, Any]) -> PartResult:
    lists = {name: tuple(part[name]) for name in ("load", "seconds")}
    joules = None if part["joules"] is None else tuple(part["joules"])
    figures = tuple(Figure(**{**figure, "samples": tuple(figure["samples"])}) for figure in part["figures"])
    return PartResult(**{**part, **lists, "joules": joules, "figures": figures})


def earlier_suite(path: Path) -> Suite:
    """Read the results to compare with: a file, or a folder with one for this kind of machine.

    Raises:
        ConfigurationError: there is none of this kind of machine.
    """
    file = path / f"{machine_kind()}.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise ConfigurationError(f"{path}: no result of this kind of machine; expected {file.name}; write it with -o")
    earlier = read_suite(file)
    if earlier.machine != machine_name():
        raise ConfigurationError(
            f"{file}: measured on {earlier.machine}, and this is {machine_name()}; milliseconds do not travel between "
            "machines: expected a result of the same kind"
        )
    return earlier


def machine_name() -> str:
    """Return what identifies this kind of machine: processor, a hash of its features, and cores."""
    return f"{processor_fingerprint()}, {usable_cores()} cores"
