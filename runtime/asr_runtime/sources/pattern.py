"""Glob patterns -> what they match, sorted, each once. `glob.iglob` never ends in a loop of two links."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

from asr_runtime.sources.walk import Entry, entries_of

__all__ = ["is_pattern", "match"]

_WILD = re.compile(r"[*?\[]")


def is_pattern(text: str) -> bool:
    """Whether a text has a character with a meaning in patterns."""
    return _WILD.search(text) is not None


def match(pattern: str) -> Iterator[Entry]:
    """Yield the files and folders that a pattern matches, in the order of their characters.

    `*`, `?` and `[...]` match within a name, `**` any number of folders; at the end it matches all that is below.
    A hidden name is matched only by a part that begins with a dot; `**` goes through hidden folders as well.

    Yields:
        Entries of all kinds; what belongs to the system is matched like everything else, and is of that kind. The
        folders that a pattern leads through and that cannot be listed are `closed`.
    """
    path = Path(pattern)
    parts = list(path.parts)
    base = parts.pop(0) if path.is_absolute() else ""
    while parts and not is_pattern(parts[0]):
        base = os.path.join(base, parts.pop(0))  # noqa: PTH118
    if os.path.isdir(base or "."):  # noqa: PTH112 (no exception for a NUL character)
        yield from _below(base, parts, _reached(parts, 0), set())


def _below(
    folder: str, parts: list[str], places: frozenset[int], seen: set[tuple[str, frozenset[int]]]
) -> Iterator[Entry]:
    """Match what is in a folder with the parts of the pattern at any of some places."""
    here = os.path.realpath(folder or "."), places
    if here in seen:
        return
    seen.add(here)
    for entry in entries_of(folder):
        if entry.kind == "closed":
            yield entry
            continue
        after = _step(os.path.basename(entry.path), parts, places)  # noqa: PTH119
        if len(parts) in after:
            yield entry
        elif after and entry.kind == "folder":
            yield from _below(entry.path, parts, after, seen)


def _step(name: str, parts: list[str], places: frozenset[int]) -> frozenset[int]:
    """Return where in the pattern one is after a name."""
    after: set[int] = set()
    for place in places:
        part = parts[place]
        if part == "**":
            after |= _reached(parts, place)
            if place == len(parts) - 1:
                after.add(len(parts))
        elif fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith(".")):
            after |= _reached(parts, place + 1)
    return frozenset(after)


def _reached(parts: list[str], place: int) -> frozenset[int]:
    """Return a place and those that follow without a name: `**` matches no folder at all, too."""
    places = {place}
    while place < len(parts) - 1 and parts[place] == "**":
        place += 1
        places.add(place)
    return frozenset(places)
