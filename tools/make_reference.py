"""Write docs/reference.md from what the programs themselves read: `make docs`, or `--check` to compare only.

tools/reference_template.md holds the prose and the hand-written tables; a line `{{name argument}}` is replaced by what
the function `name` of this file says: parameter tables, launch arguments, command lines, settings, messages, reasons.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import importlib.util
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from corft_core import files
from corft_core.execution.reasons import Reason
from corft_core.learning.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "tools" / "reference_template.md"
REFERENCE = ROOT / "docs" / "reference.md"
SHIM = ROOT / "tools" / "ros2_standalone" / "shim"
INTERFACES = ROOT / "ros2_ws" / "src" / "corft_msgs"
DIRECTIVE = re.compile(r"^\{\{(\w+)(?: ([\w ./-]+))?\}\}$", re.MULTILINE)

# The function that builds a program's parser, called with no arguments on the command line.
PARSERS = {
    "bag_to_dataset": "main",
    "dataset": "main",
    "record": "main",
    "doctor": "main",
    "trainer": "_arguments",
    "export_policy": "_arguments",
    "policy_server": "main",
    "evaluate_live": "_parse",
    "demo": "parse",
}


class TemplateError(Exception):
    """The template and the code don't fit together."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `|` everywhere and `<` outside of code are escaped."""
    def escaped(cell: str) -> str:
        parts = cell.replace("|", "\\|").replace("\n", " ").split("`")
        return "`".join(part.replace("<", "&lt;") if number % 2 == 0 else part for number, part in enumerate(parts))

    lines = ["| " + " | ".join(map(escaped, line)) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def code(text: str) -> str:
    """Text in backticks, or nothing."""
    return f"`{text}`" if text else ""


def parameters(node: str) -> str:
    """A node's parameter table, from its `PARAMETERS`."""
    module = importlib.import_module(f"corft.{node}")
    classes = [value for value in vars(module).values()
               if isinstance(value, type) and value.__module__ == module.__name__ and "PARAMETERS" in vars(value)]
    if len(classes) != 1:
        raise TemplateError(f"corft.{node} has {len(classes)} classes with PARAMETERS, expected one")
    rows = []
    for row in classes[0].PARAMETERS:  # type: ignore[attr-defined]
        allowed = _interval(*row.range) if row.range else " ".join(map(code, row.choices))
        text = row.description + (" Read-only." if row.read_only else "")
        rows.append([code(row.name), code(_plain(row.default)), allowed, text])
    return table(["parameter", "default", "allowed", "meaning"], rows)


def _plain(value: Any) -> str:
    """A default as one types it on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if value != int(value) else f"{value:.1f}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(str(item) for item in value if item != "") + "]"
    return str(value)


def _interval(low: float, high: float) -> str:
    """An inclusive range; large bounds only keep typing errors out, so they are written short."""
    return " … ".join(f"{bound:g}" if abs(bound) < 10_000 else f"{bound:.2g}".replace("e+0", "e")
                      for bound in (low, high))


def launch(name: str) -> str:
    """A launch file's arguments, by the stand-ins for launch: the same with and without a ROS 2 installation."""
    if str(SHIM) not in sys.path:
        sys.path.insert(0, str(SHIM))
    spec = importlib.util.spec_from_file_location(name.split(".")[0], ROOT / "launch" / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = importlib.import_module("launch.actions").DeclareLaunchArgument
    rows = []
    for item in module.generate_launch_description().describe_sub_entities():
        if isinstance(item, kind):
            meaning, _, choices = item.description.partition(". Valid choices are: ")
            rows.append([code(item.name), _launch_default(item.default_value),
                         " ".join(map(code, item.choices or [])), meaning + ("." if choices else "")])
    return table(["argument", "default", "allowed", "meaning"], rows)


def _launch_default(parts: Any) -> str:
    """Text as it is; a path below the package's share folder without that folder."""
    words = re.findall(r"'([^']*)'", " ".join(part.describe() for part in parts))
    return code("/".join(word for word in words if word != "corft"))


class _Parser(Exception):
    """Carries a program's parser out of it."""


def command_line(program: str) -> str:
    """A program's arguments, from its argparse parser, independent of how this Python lays out help."""
    def caught(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Parser(self)

    function = getattr(importlib.import_module(f"corft.{program}"), PARSERS[program])
    with mock.patch.object(argparse.ArgumentParser, "parse_args", caught):
        try:
            function([])
        except _Parser as found:
            parser: argparse.ArgumentParser = found.args[0]
    verbs = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not verbs:
        return _arguments(parser, f"ros2 run corft {program}")
    return "\n\n".join(f"{verb.description}\n\n" + _arguments(verb, f"ros2 run corft {program} {name}")
                       for name, verb in verbs[0].choices.items())


def _arguments(parser: argparse.ArgumentParser, usage: str) -> str:
    """Usage and table of arguments."""
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
        words = [f"{flag} {value}" if action.nargs != 0 else flag for flag in action.option_strings] or [str(value)]
        repeated = " …" if action.nargs in ("+", "*") else ""
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        rows.append([", ".join(code(word + repeated) for word in words), text])
        if action.required:
            usage += f" {words[0]}{repeated}"
        elif not action.option_strings:
            usage += f" [{words[0]}]"
    return f"`{usage} [options]`\n\n" + table(["argument", "meaning"], rows)


def settings(_: str) -> str:
    """Every setting of a training run with default, range, meaning and source."""
    return table(["setting", "default", "allowed", "meaning [source]"], _settings(TrainConfig, ""))


def _settings(cls: type, where: str) -> Iterable[list[str]]:
    hints = typing.get_type_hints(cls)
    nested = []
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            nested.append((hints[field.name], f"{where}{field.name}."))
            continue
        data = field.metadata
        allowed = " ".join(map(code, data.get("choices") or ()))
        if data.get("low") is not None:
            allowed = _interval(data["low"], data["high"])
        default = "{}" if field.default is dataclasses.MISSING else _plain(field.default)
        yield [code(where + field.name), code(default), allowed, data["doc"]]
    for kind, prefix in nested:
        yield from _settings(kind, prefix)


def interface(path: str) -> str:
    """A message, service or action file, comments included."""
    return f"```\n{(INTERFACES / path).read_text().strip()}\n```"


def check_reasons(text: str) -> None:
    """The hand-written table of reason codes is complete."""
    _compare("reason codes", {reason.value for reason in Reason}, _rows_of(text, "Reason codes"))


def _rows_of(text: str, section: str) -> set[str]:
    """First cells, in backticks, of the tables in a section."""
    body = re.search(rf"^##+ {section}$(.*?)(?=^##? |\Z)", text, re.MULTILINE | re.DOTALL)
    if body is None:
        raise TemplateError(f"{TEMPLATE.name} has no section '{section}'")
    cells = re.findall(r"^\| ([^|]+?) \|", body[1], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def _compare(what: str, expected: set[str], seen: set[str]) -> None:
    if expected != seen:
        raise TemplateError(f"{TEMPLATE.name}, {what}: missing {sorted(expected - seen)}, "
                              f"unknown {sorted(seen - expected)}")


FUNCTIONS: dict[str, Callable[[str], str]] = {
    "parameters": parameters, "launch": launch, "command_line": command_line, "settings": settings,
    "interface": interface,
}


def reference() -> str:
    """The text of docs/reference.md."""
    template = TEMPLATE.read_text()
    check_reasons(template)
    return DIRECTIVE.sub(lambda match: FUNCTIONS[match[1]](match[2] or ""), template)


def main() -> int:
    """Write or check; exit code 1 when a check finds a difference."""
    parser = argparse.ArgumentParser(description="Generate docs/reference.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is out of date")
    check = parser.parse_args().check
    try:
        text = reference()
    except TemplateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not check:
        files.write_text(REFERENCE, text)
        return 0
    old = REFERENCE.read_text() if REFERENCE.exists() else ""
    difference = list(difflib.unified_diff(old.splitlines(), text.splitlines(), "docs/reference.md", "generated",
                                           lineterm="", n=0))
    if difference:
        print("docs/reference.md is out of date; run `make docs`:\n" + "\n".join(difference[:40]), file=sys.stderr)
    return 1 if difference else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
