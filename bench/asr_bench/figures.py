"""What every benchmark gives: figures with all samples, so that one program can run and compare them all.

Each command `python -m asr_bench.X` takes `-o FILE.json` and writes its figures there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import numpy as np

from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import write_whole

__all__ = ["Figure", "Measured", "Ratio", "compare", "figures_json", "figures_option", "read_figures", "write_figures"]

_RESAMPLES = 2000
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


@dataclass(frozen=True)
class Figure:
    """One quantity that was measured several times.

    Attributes:
        name: what was measured, in words; a benchmark gives each name once.
        unit: of the samples, for example `ms` or `pictures/s`.
        more_is_better: True for rates, False for times and memory.
        samples: in the order in which they were taken, at least one.
    """

    name: str
    unit: str
    more_is_better: bool
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median of the samples."""
        return float(np.median(self.samples))

    def __str__(self) -> str:
        """Return median and range: `12.3 ms (11.9 to 13.0)`."""
        return f"{self.median:.4g} {self.unit} ({min(self.samples):.4g} to {max(self.samples):.4g})"


class Measured(Protocol):
    """The result of a benchmark."""

    def figures(self) -> list[Figure]:
        """Return what was measured."""
        ...


@dataclass(frozen=True)
class Ratio:
    """The median of later samples over the median of earlier ones, with its 95% interval over resampled samples.

    Attributes:
        ratio: of the medians.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    ratio: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval contains 1."""
        return self.low <= 1 <= self.high


def compare(earlier: Sequence[float], later: Sequence[float]) -> Ratio:
    """Compare two sets of samples of one quantity.

    Args:
        earlier: samples, above 0.
        later: samples, above 0.
    """
    rng = np.random.default_rng(0)
    old, new = np.asarray(earlier, np.float64), np.asarray(later, np.float64)
    drawn = [np.median(rng.choice(values, (_RESAMPLES, len(values))), axis=1) for values in (new, old)]
    low, high = np.quantile(drawn[0] / drawn[1], [0.025, 0.975])
    return Ratio(float(np.median(new) / np.median(old)), float(low), float(high))


def figures_json(measured: Iterable[Measured]) -> str:
    """Return the figures of some results as JSON."""
    return json.dumps([asdict(figure) for result in measured for figure in result.figures()], indent=1) + "\n"


def write_figures(measured: Iterable[Measured], path: Path) -> None:
    """Write the figures of some results as JSON.

    Raises:
        OutputError: the file cannot be written.
    """
    write_whole(path, figures_json(measured), what="figures")


def read_figures(path: Path) -> list[Figure]:
    """Read what `write_figures` wrote.

    Raises:
        ConfigurationError: it is not such a file.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Figure(**{**entry, "samples": tuple(entry["samples"])}) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{path}: expected the figures that a benchmark wrote with -o") from None


def figures_option(function: _Decorated) -> _Decorated:
    """Add `-o FILE.json`, the option `output` of every benchmark."""
    return click.option(
        *("-o", "--output"),
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.json",
        help="Write the figures with all samples, too.",
    )(function)
