"""Every error that a user can meet, as one tree.

AsrError                      exit code
├── ConfigurationError        2   an option or a combination of options that cannot work
├── DependencyError           2   a package (an extra) is missing, or two exclude each other
├── ModelError                2   the model file is refused: no card, unknown schema, contradicts its graph
├── DeviceError               2   no session starts on the device that was asked for
├── DatasetError              2   a data folder does not have the structure of its layout
├── InputError                1   one input could not be scored; the run goes on
│   ├── DecodeError           1   the bytes are not a complete image
│   └── SourceError           1   the path cannot be read, or the video has no frame
├── InferenceError            1   the model ran, and its output is not usable
│   └── DeadlineError         1   the model did not answer in time
├── RankError                 1   another process of the same training was lost
├── GateError                 1   parity or another quality gate failed
└── OutputError               3   results could not be written

A message has three parts: what is wrong, what was expected, and what to do. The commands print it as one line.
"""

from __future__ import annotations

__all__ = [
    "AsrError",
    "ConfigurationError",
    "DatasetError",
    "DeadlineError",
    "DecodeError",
    "DependencyError",
    "DeviceError",
    "GateError",
    "InferenceError",
    "InputError",
    "ModelError",
    "OutputError",
    "RankError",
    "SourceError",
]


class AsrError(Exception):
    """Root of the tree. A command that ends with the error has the exit code `exit_code`."""

    exit_code = 2


class ConfigurationError(AsrError):
    """An option, or a combination of options, that cannot work."""


class DependencyError(AsrError):
    """A package is missing, or two that exclude each other are installed."""


class ModelError(AsrError):
    """A model file that is refused before any input is read."""


class DeviceError(AsrError):
    """No session starts on the device that was asked for."""


class DatasetError(AsrError):
    """A data folder does not have the structure of its layout."""


class InputError(AsrError):
    """One input could not be scored; the others are not affected."""

    exit_code = 1


class DecodeError(InputError):
    """The bytes are not a complete image of a known format."""


class SourceError(InputError):
    """A path that cannot be read, or a video without a frame."""


class InferenceError(AsrError):
    """The model ran, and its output is not usable: NaN or infinity, or the engine failed."""

    exit_code = 1


class DeadlineError(InferenceError):
    """The model did not answer in time."""


class RankError(AsrError):
    """Another process of the same training was lost, so it cannot go on."""

    exit_code = 1


class GateError(AsrError):
    """Parity or another quality gate failed."""

    exit_code = 1


class OutputError(AsrError):
    """Results could not be written."""

    exit_code = 3
