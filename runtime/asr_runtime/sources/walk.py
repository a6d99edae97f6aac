"""What lies in a folder: sorted, links followed, each folder once, files of the operating system left alone.

Every command that reads folders uses this, so that screening, training and the audit see the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Entry", "belongs_to_the_system", "entries_of", "files_below", "walk"]

# Names in lower case. What operating systems, network drives, cameras' docks and version control put beside pictures.
_SYSTEM_FILES = frozenset(
    {".ds_store", ".localized", ".apdisk", ".volumeicon.icns", "icon\r", ".com.apple.timemachine.donotpresent"}
    | {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "autorun.inf"}
    | {".directory", ".nomedia", ".picasa.ini", "picasa.ini", ".gitignore", ".gitattributes", ".gitkeep"}
)
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", ".appledouble", ".appledb", ".appledesktop", ".spotlight-v100", ".fseventsd", ".trash", ".trashes"}
    | {".documentrevisions-v100", ".temporaryitems", "network trash folder", "temporary items"}
    | {"$recycle.bin", "recycler", "system volume information"}
    | {"@eadir", "#recycle", "@recycle", "#snapshot", "@recently-snapshot", ".@__thumb", ".snapshot", ".zfs"}
    | {"lost+found", ".thumbnails", ".thumb", ".dtrash", ".stfolder", ".stversions", ".dropbox.cache"}
    | {".git", ".hg", ".svn", ".bzr", ".ipynb_checkpoints", "__pycache__"}
)
_SYSTEM_PREFIXES = ("._", ".trash-", ".nfs", ".fuse_hidden", ".syncthing.", "~syncthing~")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a folder.

    Attributes:
        path: the folder's path as it was given, and the way from there.
        kind: `file` for whatever is no folder, links that lead nowhere included; `folder`; `system` for what belongs
            to the operating system; `closed` for a folder that cannot be listed.
        reason: why it cannot be listed.
    """

    path: str
    kind: Literal["file", "folder", "system", "closed"]
    reason: str = ""


def belongs_to_the_system(name: str, is_folder: bool) -> bool:
    """Whether a name is that of a file, or a folder, that no user put there.

    Args:
        name: the last part of a path.
        is_folder: it is one.
    """
    low = name.lower()
    return low.startswith(_SYSTEM_PREFIXES) or low in (_SYSTEM_FOLDERS if is_folder else _SYSTEM_FILES)


def entries_of(folder: str) -> Iterator[Entry]:
    """Yield what is in one folder, sorted so that a walk gives paths in the order of their characters.

    Links are followed; the kind `system` stands for itself and all below it.
    """
    try:
        with os.scandir(folder or ".") as entries:
            listed = [(entry.name, _is_folder(entry)) for entry in entries]
    except OSError as error:
        yield Entry(folder, "closed", error.strerror or "")
        return
    for name, is_folder in sorted(listed, key=lambda each: each[0] + "/" * each[1]):
        path = os.path.join(folder, name)  # noqa: PTH118 (Path would drop a leading "./")
        if belongs_to_the_system(name, is_folder):
            yield Entry(path, "system")
        else:
            yield Entry(path, "folder" if is_folder else "file")


def walk(top: str) -> Iterator[Entry]:
    """Yield every file below a folder, and what is left alone; each folder once, however links lead to it.

    Folders are listed while they are walked through.

    Yields:
        Entries of the kinds `file`, `system` and `closed`.
    """
    seen = {os.path.realpath(top)}
    levels = [entries_of(top)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
        elif entry.kind != "folder":
            yield entry
        elif (real := os.path.realpath(entry.path)) not in seen:
            seen.add(real)
            levels.append(entries_of(entry.path))


def files_below(top: str) -> Iterator[str]:
    """Yield the paths of all files below a folder, sorted; what is left alone, or cannot be listed, is left out."""
    return (entry.path for entry in walk(top) if entry.kind == "file")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a loop, for one; the error follows when it is read
