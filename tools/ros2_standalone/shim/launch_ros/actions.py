"""ROS actions that this project's launch files use."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from launch._core import Action, LaunchContext, SomeSubstitutionsType, module_getattr, normalize, perform
from launch._process import ExecuteProcess

from .parameter_descriptions import ParameterFile, as_source, evaluate_parameters, evaluate_value
from .substitutions import ExecutableInPackage

__all__ = ["Node", "PushROSNamespace", "PushRosNamespace", "SetParameter", "SetRemap"]
__getattr__ = module_getattr(__name__)

_NAMESPACE, _PARAMETERS, _REMAPS = "ros_namespace", "global_params", "ros_remaps"


def _joined(base: str | None, namespace: str) -> str:
    """Absolute namespace: an absolute one replaces the base, a relative one extends it."""
    if not namespace.startswith("/"):
        namespace = f"{base or ''}/{namespace}"
    return "/" + "/".join(part for part in namespace.split("/") if part)


def _parameter_file(values: Mapping[str, Any]) -> str:
    """A temporary parameter file for all node names, removed when the launch ends."""
    with tempfile.NamedTemporaryFile("w", prefix="launch_params_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({"/**": {"ros__parameters": dict(values)}}, file, default_flow_style=False, allow_unicode=True)
    atexit.register(_remove, file.name)
    return file.name


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)


class Node(ExecuteProcess):
    """Run an executable of a package as a ROS node."""

    def __init__(
        self,
        *,
        executable: SomeSubstitutionsType,
        package: SomeSubstitutionsType | None = None,
        name: SomeSubstitutionsType | None = None,
        namespace: SomeSubstitutionsType | None = None,
        exec_name: SomeSubstitutionsType | None = None,
        parameters: Sequence[Any] | None = None,
        remappings: Iterable[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] | None = None,
        ros_arguments: Iterable[SomeSubstitutionsType] | None = None,
        arguments: Iterable[SomeSubstitutionsType] | None = None,
        **options: Any,
    ) -> None:
        program = executable if package is None else ExecutableInPackage(executable, package)
        super().__init__(cmd=[program, *(arguments or [])], name=exec_name, **options)
        if isinstance(parameters, (str, Mapping)):
            raise TypeError(f"parameters: expected a list of dictionaries and files, got {parameters!r}")
        self.node_name, self.namespace = name, namespace
        self.parameters = [as_source(item) for item in parameters or []]
        self.remappings = [(normalize(a), normalize(b)) for a, b in remappings or []]
        self.ros_arguments = list(ros_arguments or [])

    def command(self, context: LaunchContext) -> list[str]:
        words = [*super().command(context), "--ros-args"]
        words += [perform(context, word) for word in self.ros_arguments]
        if self.node_name is not None:
            words += ["-r", f"__node:={perform(context, self.node_name)}"]
        base = context.launch_configurations.get(_NAMESPACE)
        if self.namespace is not None or base is not None:
            own = "" if self.namespace is None else perform(context, self.namespace)
            words += ["-r", f"__ns:={_joined(base, own)}"]
        shared = context.launch_configurations.get(_PARAMETERS, {})
        for source in ([shared] if shared else []) + self.parameters:
            if isinstance(source, ParameterFile):
                words += ["--params-file", source.evaluate(context)]
            else:
                words += ["--params-file", _parameter_file(evaluate_parameters(context, source))]
        for old, new in [*context.launch_configurations.get(_REMAPS, ()), *self.remappings]:
            words += ["-r", f"{perform(context, old)}:={perform(context, new)}"]
        return words


class PushROSNamespace(Action):
    """Put the nodes that follow in this scope into a namespace."""

    def __init__(self, namespace: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        self.namespace = normalize(namespace)

    def execute(self, context: LaunchContext) -> None:
        configurations = context.launch_configurations
        configurations[_NAMESPACE] = _joined(configurations.get(_NAMESPACE), perform(context, self.namespace))


PushRosNamespace = PushROSNamespace


class SetParameter(Action):
    """Set a parameter of all nodes that follow in this scope; a node's own value wins."""

    def __init__(self, name: SomeSubstitutionsType, value: Any, **options: Any) -> None:
        super().__init__(**options)
        self.name, self.value = normalize(name), value

    def execute(self, context: LaunchContext) -> None:
        value = evaluate_value(context, self.value)
        before = context.launch_configurations.get(_PARAMETERS, {})
        context.launch_configurations[_PARAMETERS] = {**before, perform(context, self.name): value}


class SetRemap(Action):
    """Remap a name of all nodes that follow in this scope."""

    def __init__(self, src: SomeSubstitutionsType, dst: SomeSubstitutionsType, **options: Any) -> None:
        super().__init__(**options)
        self.pair = (normalize(src), normalize(dst))

    def execute(self, context: LaunchContext) -> None:
        before = context.launch_configurations.get(_REMAPS, ())
        context.launch_configurations[_REMAPS] = (*before, self.pair)
