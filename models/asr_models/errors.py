"""What can go wrong with networks and their files; this package imports nothing else of the project.

ModelsError(ValueError)
├── OptionError       a name or an option of a network that does not exist or cannot work
├── CheckpointError   a file that is no checkpoint, is damaged, or does not fit the network
└── WeightsError      pretrained weights that cannot be obtained
"""

from __future__ import annotations

__all__ = ["CheckpointError", "ModelsError", "OptionError", "WeightsError", "reason"]


class ModelsError(ValueError):
    """Root of this package's errors."""


class OptionError(ModelsError):
    """A network name or option that does not exist or cannot work."""


class CheckpointError(ModelsError):
    """A file that is no checkpoint, is damaged, or does not fit the network."""


class WeightsError(ModelsError):
    """Pretrained weights could not be downloaded, read or fitted."""


def reason(error: Exception) -> str:
    """Return the first line of another library's error, for a message of one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
