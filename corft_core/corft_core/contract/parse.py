"""From plain data to the contract's parts and back. Every error names the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from corft_core.contract import field_path
from corft_core.errors import ContractError


def mapping(data: Any, where: str, keys: Iterable[str], optional: Iterable[str] = ()) -> dict[str, Any]:
    """``data`` as a mapping that has all ``keys`` but perhaps the ``optional`` ones, and no other."""
    known, needed = set(keys), set(keys) - set(optional)
    if not isinstance(data, dict):
        raise ContractError(f"{where} must be a mapping with the keys {sorted(known)}, got {type(data).__name__}")
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known - data.keys()), 1, 0.6)
        raise ContractError(f"unknown key {', '.join(unknown)} in {where}"
                            + (f" (did you mean {near[0]}?)" if near else "")
                            + f"; known keys: {', '.join(sorted(known))}")
    missing = sorted(needed - data.keys())
    if missing:
        raise ContractError(f"{where} lacks the key {', '.join(missing)}")
    return data


def sequence(data: Any, where: str) -> list[Any]:
    """``data`` as a list."""
    if not isinstance(data, (list, tuple)):
        raise ContractError(f"{where} must be a list, got {data!r}")
    return list(data)


def build(kind: Any, data: Any, where: str) -> Any:
    """The dataclass ``kind`` from a mapping; keys whose field has a default may be absent."""
    optional = [f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING]
    given = mapping(data, where, [f.name for f in fields(kind)], optional)
    hints = get_type_hints(kind)
    return kind(**{f.name: convert(hints[f.name], given[f.name], f"{where}.{f.name}")
                   for f in fields(kind) if f.name in given})


def convert(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``kind``. Raises ContractError saying what was expected."""
    if get_origin(kind) is UnionType:
        return None if value is None else convert(next(a for a in get_args(kind) if a is not NoneType), value, where)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ContractError(f"{where} must be one of {', '.join(get_args(kind))}; got {value!r}")
        return value
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, where)
    if get_origin(kind) is Mapping:
        if not isinstance(value, dict):
            raise ContractError(f"{where} must be a mapping, got {value!r}")
        return {convert(str, key, where): build(get_args(kind)[1], item, f"{where}.{key}")
                for key, item in value.items()}
    if kind is str:
        if not isinstance(value, str):
            raise ContractError(f"{where} must be text, got {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        raise ContractError(f"{where} must be a {'whole' if kind is int else 'finite'} number; got {value!r}")
    if not math.isfinite(value):
        raise ContractError(f"{where} must be a finite number; got {value!r}")
    return kind(value)


def _tuple(inner: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    items = sequence(value, where)
    if where.endswith(".fields"):
        try:
            return tuple(path for i, item in enumerate(items)
                         for path in field_path.expand(convert(str, item, f"{where}[{i}]")))
        except ValueError as error:
            raise ContractError(f"{where}: {error}") from error
    if inner[-1] is not Ellipsis and len(items) != len(inner):
        raise ContractError(f"{where} needs {len(inner)} values, got {len(items)}: {items}")
    return tuple(convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(items))


def plain(value: Any) -> Any:
    """Inverse of `build`: nothing but what JSON and YAML know; absent and empty optional keys are left out."""
    if hasattr(value, "__dataclass_fields__"):
        parts = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return {name: part for name, part in parts.items() if part not in (None, [], {})}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
