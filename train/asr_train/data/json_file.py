"""JSON files of runs and protocols: written whole or not at all, and checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import write_whole

__all__ = ["read_json", "write_json"]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigurationError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: damaged, not JSON ({error}); delete it or start a new run") from None
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: holds a {type(content).__name__}, expected a JSON object; start a new run")
    return content


def write_json(path: Path, content: Mapping[str, Any], sort_keys: bool = False) -> None:
    """Write a JSON file that appears whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    write_whole(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n")
