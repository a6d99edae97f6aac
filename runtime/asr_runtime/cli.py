"""The commands `asr-screen` and `asr-doctor`, as pyproject.toml names them."""

from asr_runtime.commands.doctor import doctor_command
from asr_runtime.commands.screen import screen_command

__all__ = ["doctor_command", "screen_command"]
