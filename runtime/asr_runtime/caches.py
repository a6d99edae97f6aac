"""Where the project keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "use_own_matplotlib_cache"]


def cache_folder(name: str) -> Path:
    """Return a folder below `$XDG_CACHE_HOME/asrnet-edge`, or `~/.cache/asrnet-edge`; it is not made.

    Args:
        name: of the cache.

    Raises:
        RuntimeError: the user has no home.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "asrnet-edge", name)


def use_own_matplotlib_cache() -> None:
    """Let Matplotlib keep its list of fonts in our cache, or in a temporary folder where the home is read-only.

    By default it makes two folders in the home, and complains on standard error if it cannot. Has no effect
    once Matplotlib is imported, or where the user has configured it.
    """
    if "MPLCONFIGDIR" in os.environ:
        return
    try:
        settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "matplotlib", "matplotlibrc")
        if settings.exists():
            return
        folder = cache_folder("matplotlib")
        exists = next(place for place in (folder, *folder.parents) if place.exists())
        is_writable = os.access(exists, os.W_OK)
    except (OSError, RuntimeError):
        is_writable = False
    os.environ["MPLCONFIGDIR"] = str(folder) if is_writable else _temporary_folder()


def _temporary_folder() -> str:
    import atexit
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="asrnet-edge-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
