"""Plain JSON data -> frozen dataclasses, every name and type checked by the annotations."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

__all__ = ["from_dict"]

T = TypeVar("T")


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build a dataclass from plain JSON data, checking names and types; its fields may be dataclasses.

    Raises:
        ValueError: a field is missing, unknown or of another type; the message names it.
    """
    return typing.cast(T, _read(cls, data, cls.__name__))


def _read(kind: Any, value: Any, where: str) -> Any:
    """Check `value` against a type annotation; convert lists to tuples, dicts to dataclasses."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if kind is Any:
        return value
    if origin is Literal:
        if value not in args:
            raise ValueError(f"{where}: {value!r}, expected one of {', '.join(map(repr, args))}")
        return value
    if origin is types.UnionType:
        return None if value is None else _read(args[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where}: {type(value).__name__}, expected a list")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise ValueError(f"{where}: {len(value)} values, expected {len(kinds)}")
        return tuple(_read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: {type(value).__name__}, expected an object")
        return {k: _read(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: {value!r}, expected {kind.__name__}")
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {type(value).__name__}, expected an object")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - set(fields)):
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise ValueError(f"{where}: field {name!r} is missing")
    return kind(**{name: _read(hints[name], v, f"{where}.{name}") for name, v in value.items()})
