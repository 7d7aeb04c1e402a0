"""Validated, self-documenting configuration: frozen dataclasses whose fields carry their meaning and range.

`option(...)` declares a field; `parse(cls, mapping)` builds the dataclass from JSON or YAML data and names the
field, the value and the allowed range when something is wrong; `describe(cls)` prints what can be set.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from corft_core.errors import CorftError

T = TypeVar("T")


class ConfigError(CorftError):
    """A configuration value is unknown, of the wrong type or out of range."""


def option(
    default: Any,
    doc: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its one-line documentation, inclusive numeric range or allowed words."""
    return dataclasses.field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


def section(cls: type[T], doc: str) -> Any:
    """A nested configuration as a field."""
    return dataclasses.field(default_factory=cls, metadata={"doc": doc})


def check(config: Any, where: str = "") -> None:
    """Raise ConfigError unless every field of `config` lies in its declared range."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{where}{field.name}"
        if dataclasses.is_dataclass(value):
            check(value, f"{name}.")
            continue
        choices = field.metadata.get("choices")
        if choices and value not in choices:
            raise ConfigError(f"{name} = {value!r}: expected one of {', '.join(choices)}.")
        low, high = field.metadata.get("low"), field.metadata.get("high")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        inside = not number or ((low is None or value >= low) and (high is None or value <= high))
        if not inside:
            raise ConfigError(f"{name} = {value}: expected a value from {low} to {high}.")


def _coerce(value: Any, kind: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        try:  # YAML 1.1 reads 3e-4 as a string
            return float(value)
        except ValueError:
            pass
    origin = typing.get_origin(kind) or kind
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(value)
    if origin is dict and isinstance(value, Mapping):
        return dict(value)
    good = isinstance(value, origin) and not (origin is int and isinstance(value, bool))
    if not good:
        raise ConfigError(f"{name} = {value!r}: expected {getattr(origin, '__name__', origin)}.")
    return value


def parse(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build `cls` from nested mappings; unknown keys, wrong types and values out of range raise ConfigError."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or cls.__name__}: expected a mapping, got {type(data).__name__}.")
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in names:
            raise ConfigError(f"unknown setting {where}{key}; known here: {', '.join(names)}.")
        kind: Any = hints[key]
        name = f"{where}{key}"
        nested = isinstance(kind, type) and dataclasses.is_dataclass(kind)
        values[key] = parse(kind, value, f"{name}.") if nested else _coerce(value, kind, name)
    config = cls(**values)
    check(config, where)
    return config


def override(cls: type[T], data: Mapping[str, Any], assignments: Mapping[str, Any]) -> T:
    """`parse(cls, data)` after setting dotted keys, as in {"co_rft.alpha": 0.1}."""
    merged: dict[str, Any] = _copy(data)
    for dotted, value in assignments.items():
        node = merged
        *parents, leaf = dotted.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"unknown setting {dotted}.")
        node[leaf] = value
    return parse(cls, merged)


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}


def describe(cls: type, where: str = "") -> list[str]:
    """One line for each setting: dotted name, default, meaning."""
    hints = typing.get_type_hints(cls)
    lines: list[str] = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            lines += describe(hints[field.name], f"{where}{field.name}.")
        else:
            default = field.default if field.default is not dataclasses.MISSING else "{}"
            choices = field.metadata.get("choices")
            words = f" One of {', '.join(choices)}." if choices else ""
            lines.append(f"{where}{field.name} = {default}\n    {field.metadata.get('doc', '')}{words}")
    return lines
