"""The version of the code that made a file: a hash over modules, and over all of ours that they import."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["code_version"]

_OURS = ("asr_models", "asr_runtime", "asr_train")


def code_version(modules: Sequence[str], alone: Sequence[str] = ()) -> str:
    """Return a hash over the source of modules of ours and of every module of ours that they import.

    Imports are read from the source, those inside functions too; nothing is imported. A name that a package hands on
    (`from asr_models import InputTransform`) leads to the module that defines it, not to all that the package imports.

    Args:
        modules: dotted names, followed through their imports.
        alone: dotted names of modules whose own source counts, but not what they import for other work.

    Returns:
        64 hexadecimal digits; another one if a byte of any of these files changes.
    """
    sources: dict[str, bytes] = {}
    waiting = [*modules, *alone]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = _file_of(name).read_bytes()
            waiting += () if name in alone else _imported(ast.parse(sources[name]))
    digest = hashlib.sha256()
    for name, source in sorted(sources.items()):
        digest.update(f"{name} {hashlib.sha256(source).hexdigest()}\n".encode())
    return digest.hexdigest()


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules of ours that a module imports from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.module is not None and _is_ours(node.module):
            yield from (_defining(node.module, alias.name) for alias in node.names)


def _defining(module: str, name: str) -> str:
    """Return the module that a name comes from: a module of a package, what the package hands on, or the module."""
    file = _file_of(module)
    if file.name != "__init__.py":
        return module
    if _path_of(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module is not None and _is_ours(node.module):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _defining(node.module, alias.name)
    return module


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _OURS


def _file_of(module: str) -> Path:
    path = _path_of(module)
    if path is None:
        raise ModuleNotFoundError(f"no module {module}")
    return path


def _path_of(module: str) -> Path | None:
    """Return the source file of a module or package; only the specification of its top-level package is looked up."""
    package, *parts = module.split(".")
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, *parts)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
