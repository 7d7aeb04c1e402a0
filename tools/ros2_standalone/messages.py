"""Message, service and action types by name: Python classes, and definitions for self-describing bags."""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from .packages import UsageError, package_share

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore


def interface(type_name: str, kind: str = "msg") -> Any:
    """Class of `pkg/msg/Name` (or `pkg/Name`); `kind` is msg, srv or action. Raises UsageError."""
    parts = type_name.split("/")
    if len(parts) == 2:
        parts.insert(1, kind)
    if len(parts) != 3 or parts[1] != kind:
        raise UsageError(f"'{type_name}' is not a type of the form package/{kind}/Name")
    try:
        return getattr(importlib.import_module(f"{parts[0]}.{kind}"), parts[2])
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the type '{type_name}' cannot be loaded: {error}") from error


@cache
def empty_typestore() -> Typestore:
    """The store that `register` fills."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.EMPTY)


def register(type_name: str) -> Typestore:
    """Store that knows a message type and all it is made of, read from share/<pkg>/msg. Raises UsageError."""
    from rosbags.typesys import get_types_from_msg

    store = empty_typestore()
    todo = [type_name]
    found: dict[str, Any] = {}
    while todo:
        name = todo.pop()
        if name in found or name in store.fielddefs:
            continue
        package, _, short = name.split("/")
        path = package_share(package) / "msg" / f"{short}.msg"
        if not path.is_file():
            raise UsageError(f"the definition of '{name}' was not found at {path}")
        found |= get_types_from_msg(path.read_text(encoding="utf-8"), name)
        todo += _names(found[name][1])
    if found:
        store.register(found)
    return store


def _names(fields: Any) -> list[str]:
    """Message types among field definitions of rosbags: (name, (node type, description)), arrays nested."""
    from rosbags.interfaces import Nodetype

    names = []
    for _, (node, description) in fields:
        while node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            node, description = description[0]
        if node == Nodetype.NAME:
            names.append(description)
    return names


def fill(message: Any, text: str) -> Any:
    """Set the fields of a message from YAML text, as `ros2 topic pub` and `service call` take it."""
    try:
        values = yaml.safe_load(text) if text else {}
        _set(message, values or {})
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"Failed to populate field: {error}") from error
    return message


def _set(message: Any, values: Any) -> None:
    if not isinstance(values, dict):
        raise TypeError(f"expected fields of {type(message).__name__} as {{name: value}}, got {values!r}")
    kinds = message.get_fields_and_field_types()
    for name, value in values.items():
        if name not in kinds:
            raise AttributeError(f"{type(message).__name__} has no field '{name}', it has {list(kinds)}")
        kind = kinds[name]
        if "/" in kind and not isinstance(value, list):
            _set(getattr(message, name), value)
        elif "/" in kind:
            inner = interface(kind.removeprefix("sequence<").split(",")[0].split("[")[0].rstrip(">"))
            setattr(message, name, [_filled(inner(), item) for item in value])
        else:
            floats = kind.startswith(("float", "double"))
            setattr(message, name, float(value) if floats and not isinstance(value, list) else _list(value, kind))


def _filled(message: Any, values: Any) -> Any:
    _set(message, values)
    return message


def _list(value: Any, kind: str) -> Any:
    if isinstance(value, list) and ("float" in kind or "double" in kind):
        return [float(item) for item in value]
    return value


def as_plain(message: Any, *, truncate: int | None = None) -> Any:
    """A message as dictionaries, lists and numbers; arrays longer than `truncate` are cut."""
    if hasattr(message, "get_fields_and_field_types"):
        return {
            name: as_plain(getattr(message, name), truncate=truncate) for name in message.get_fields_and_field_types()
        }
    if isinstance(message, (str, bool, int, float)):
        return message
    if isinstance(message, bytes):
        return list(message)
    cut = truncate is not None and len(message) > truncate
    items = [as_plain(item, truncate=truncate) for item in (message[:truncate] if cut else message)]
    items = [item.item() if hasattr(item, "item") else item for item in items]
    return [*items, "..."] if cut else items


def to_yaml(message: Any, *, truncate: int | None = 128) -> str:
    """A message as YAML text."""
    return yaml.safe_dump(as_plain(message, truncate=truncate), sort_keys=False, allow_unicode=True, width=1000)
