"""`python -m asr_runtime` is `asr-screen`."""

from __future__ import annotations

from asr_runtime.cli import screen_command

if __name__ == "__main__":
    screen_command(prog_name="asr-screen")
