"""Git repositories that hold the pictures of a collection: snapshots on this disk, or clones from a prefix."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from asr_runtime.errors import DatasetError, DependencyError, OutputError

__all__ = ["Blobs", "clone", "find_snapshot", "open_repository"]

_CLONE_SECONDS = 1800.0
# A repository is data: git runs nothing from its configuration and asks for no password.
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_SMUDGE": "1"}


class Blobs:
    """Reads objects of one repository by name; one git process answers for all.

    Args:
        repository: git directory.
    """

    def __init__(self, repository: Path) -> None:
        self._process = subprocess.Popen(
            _git("-C", str(repository), "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
        )

    def read(self, blob: str) -> bytes | None:
        """Return the bytes of an object, or None if the repository does not have it.

        Raises:
            DatasetError: git ended: the folder is no repository, or a damaged one.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both pipes were asked for")
        try:
            self._process.stdin.write(blob.encode() + b"\n")
            self._process.stdin.flush()
            head = self._process.stdout.readline().split()
        except OSError:
            head = []
        if not head:
            raise DatasetError("git cannot read it: not a repository, or a damaged one")
        if head[-1] == b"missing":
            return None
        data = self._process.stdout.read(int(head[2]))
        self._process.stdout.read(1)
        return data

    def close(self) -> None:
        """End the git process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.kill()
        self._process.wait()


def find_snapshot(folder: Path, repository: str) -> Path | None:
    """Return the git directory of `owner/name` below a folder of snapshots.

    Known places: `owner/name`, `owner/name.git`, `owner+name`, each a git directory, or with
    `.git`, `repo` or `repo/.git` inside.
    """
    for name in (repository, f"{repository}.git", repository.replace("/", "+")):
        for place in (folder / name, folder / name / ".git", folder / name / "repo", folder / name / "repo" / ".git"):
            if (place / "objects").is_dir():
                return place
    return None


def clone(prefix: str, repository: str, folder: Path) -> Path:
    """Clone `PREFIX/owner/name` without a work tree below `folder`; a finished clone is used again.

    Raises:
        DatasetError: git could not clone it; the message is git's own last line.
        DependencyError: git is not installed.
        OutputError: the folder cannot be made.
    """
    target = folder / repository
    if (target / "objects").is_dir():
        return target
    partial = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be made ({error.strerror}); expected a folder with space") from None
    command = _git("clone", "--quiet", "--bare", "--", f"{prefix.rstrip('/')}/{repository}", str(partial))
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, partial)
        _remove(partial)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_CLONE_SECONDS,
                check=False,
                env={**os.environ, **_ENVIRONMENT},
            )
        except FileNotFoundError:
            raise DependencyError("git is not installed; install it, or give --snapshots") from None
        except subprocess.TimeoutExpired:
            raise DatasetError(f"cloning did not end within {_CLONE_SECONDS:.0f} s") from None
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["git clone failed"]
            raise DatasetError(lines[-1])
        partial.rename(target)
    return target


@contextlib.contextmanager
def open_repository(folder: Path) -> Iterator[Blobs]:
    """Open a git directory for reading.

    Raises:
        DependencyError: git is not installed.
    """
    try:
        blobs = Blobs(folder)
    except FileNotFoundError:
        raise DependencyError("git is not installed; install it to read repositories") from None
    with contextlib.closing(blobs):
        yield blobs


def _git(*arguments: str) -> list[str]:
    return ["git", "-c", "safe.directory=*", "-c", "core.hooksPath=/dev/null", *arguments]


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
