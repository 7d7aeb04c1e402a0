"""Parameters of a node: values with a type, parameter files, and what they become on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

import yaml
from launch._core import (
    LaunchContext,
    SomeSubstitutionsType,
    Substitution,
    is_substitution,
    module_getattr,
    normalize,
    perform,
    refuse,
    refuse_options,
)

__all__ = ["ParameterFile", "ParameterValue"]
__getattr__ = module_getattr(__name__)


class ParameterValue:
    """A value, or substitutions, to be read as `value_type` (by the rules of YAML where it is None)."""

    def __init__(self, value: Any, *, value_type: Any = None) -> None:
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        """The value in Python's types; raises TypeError where it does not fit the type."""
        if is_substitution(self.value) or isinstance(self.value, str):
            text = perform(context, self.value)
            return text if self.value_type is str else _typed(_from_yaml(text), self.value_type, text)
        return _typed(evaluate_value(context, self.value), self.value_type, self.value)


class ParameterFile:
    """A YAML file of parameters."""

    def __init__(self, param_file: SomeSubstitutionsType, *, allow_substs: bool = False, **options: Any) -> None:
        refuse_options("ParameterFile", options)
        if allow_substs:
            refuse("the option 'allow_substs=True' of ParameterFile")
        self.param_file = normalize(param_file)

    def evaluate(self, context: LaunchContext) -> str:
        """Absolute path of the file; raises FileNotFoundError."""
        path = os.path.abspath(perform(context, self.param_file))
        if not os.path.isfile(path):
            raise FileNotFoundError(f"Parameter file path is not a file: {path}")
        return path


def _from_yaml(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TypeError(
            f"Unable to parse the value '{text}' as yaml. If the parameter is meant to be a string, "
            "try wrapping it in launch_ros.parameter_descriptions.ParameterValue(value, value_type=str)"
        ) from error
    return "" if value is None else value


def _typed(value: Any, wanted: Any, source: Any) -> Any:
    if wanted is None:
        return _check(value, source)
    if get_origin(wanted) in (list, Sequence) or get_origin(wanted) is list:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"'{source}' is not a list, as the parameter's type {wanted} asks for")
        return [_typed(item, get_args(wanted)[0], source) for item in value]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (wanted is int and isinstance(value, bool)) or not isinstance(value, wanted):
        raise TypeError(f"'{source}' is not of the parameter's type {wanted.__name__}")
    return value


def _check(value: Any, source: Any) -> Any:
    """Allowed: bool, int, float, str, bytes, and non-empty lists of one of the first four."""
    if isinstance(value, (bool, int, float, str, bytes)):
        return value
    if isinstance(value, (list, tuple)) and value:
        kinds = {type(item) for item in value}
        if kinds == {int, float}:
            return [float(item) for item in value]
        if len(kinds) == 1 and kinds <= {bool, int, float, str}:
            return list(value)
        raise TypeError(
            f"Expected a non-empty sequence, with items of uniform type bool, int, float or str; got '{source}'"
        )
    raise TypeError(
        f"Allowed value types are bytes, bool, int, float, str and non-empty sequences of them; got '{source}'"
    )


def evaluate_value(context: LaunchContext, value: Any) -> Any:
    """A parameter's value in Python's types. Text stays text, substitutions are read by the rules of YAML."""
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)) and any(isinstance(item, (list, tuple)) for item in value):
        return _check([_from_yaml(perform(context, item)) for item in value], value)
    if is_substitution(value):
        return _check(_from_yaml(perform(context, value)), value)
    return _check(value, value)


def evaluate_parameters(context: LaunchContext, parameters: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries → {'outer.inner': value}."""
    flat: dict[str, Any] = {}
    for key, value in parameters.items():
        name = prefix + perform(context, key)
        if isinstance(value, Mapping):
            flat |= evaluate_parameters(context, value, name + ".")
        else:
            try:
                flat[name] = evaluate_value(context, value)
            except TypeError as error:
                raise TypeError(f"parameter '{name}': {error}") from error
    return flat


def as_source(item: Any) -> Mapping[Any, Any] | ParameterFile:
    """An entry of Node's `parameters`: dictionary, ParameterFile, or the path of one."""
    if isinstance(item, (Mapping, ParameterFile)):
        return item
    if isinstance(item, (str, os.PathLike, Substitution, list, tuple)):
        return ParameterFile(item)
    raise TypeError(f"parameters: expected a dictionary or a file, got {item!r}")
