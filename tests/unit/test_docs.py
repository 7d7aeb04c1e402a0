"""The documents name only what exists, and what is generated from the code is up to date."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
# Folders of the repository, and the package's folder that documents call config/.
ROOTS = dict.fromkeys(("corft_core", "ros2_ws", "launch", "tools", "tests", "docs", "requirements", ".ci"), ROOT)
ROOTS["config"] = ROOT / "ros2_ws/src/corft"
TOP_LEVEL = re.compile(rf"(?<![\w/.<])((?:{'|'.join(map(re.escape, ROOTS))})/[\w./*-]*)")


def identifier(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=identifier)


def headings(document: Path) -> set[str]:
    """Anchors of a document's headings, as a code host makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(document: Path) -> list[str]:
    """Shell lines of the document's code, with continued lines joined and comments cut."""
    code = "\n".join(part.strip("`") for part in CODE.findall(document.read_text())).replace("\\\n", " ")
    return [line.split(" #")[0].strip().removeprefix("$ ") for line in code.splitlines()]


def programs() -> set[str]:
    """Console scripts of the package, read from its setup.py."""
    names: set[str] = set()
    for node in ast.parse((ROOT / "ros2_ws/src/corft/setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("NODES", "PROGRAMS"):
            names |= set(ast.literal_eval(node.value))
    return names


def section(title: str) -> str:
    """A section of the reference."""
    text = (ROOT / "docs/reference.md").read_text()
    found = re.search(rf"^### {re.escape(title)}$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the reference has no section {title}"
    return found[1]


@each_document
def test_links_lead_somewhere(document):
    text = CODE.sub("", document.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in headings(file), f"{path or document.name} has no heading #{anchor}"


@each_document
def test_named_files_exist(document):
    for code in CODE.findall(document.read_text()):
        for name in TOP_LEVEL.findall(code):
            base = ROOTS[name.split("/")[0]]
            assert list(base.glob(name.rstrip("/"))), f"{name} does not exist"


@each_document
def test_named_launch_files_and_their_arguments_exist(document):
    for line in commands(document):
        found = re.search(r"ros2 launch (?:-n )?corft (\S+)(.*)", line)
        if found is None or found[1].startswith("<"):
            continue
        assert (ROOT / "launch" / found[1]).is_file(), f"no launch file {found[1]}"
        known = section(found[1])
        for argument in re.findall(r"(\w+):=", found[2]):
            assert f"| `{argument}` |" in known, f"{found[1]} has no argument {argument}"


@each_document
def test_named_programs_and_their_options_exist(document):
    known = programs()
    for line in commands(document):
        found = re.search(r"ros2 run corft (\w+)(.*)", line)
        if found is None:
            continue
        assert found[1] in known, f"corft has no program {found[1]}"
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", found[2].split("--ros-args")[0]):
            assert f"`{option}" in section(found[1]), f"{found[1]} has no option {option}"


@each_document
def test_named_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(document):
        if line.startswith("make "):
            named = {word for word in line.split()[1:] if re.fullmatch(r"[a-z]+", word)}
            assert named <= targets, f"`{line}` names a target that the Makefile lacks"


def test_every_target_of_the_makefile_has_a_help_line():
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())
    assert phony == set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE))


def test_the_reference_is_what_the_programs_say():
    sources = (ROOT / "corft_core", ROOT / "ros2_ws/src/corft", os.environ.get("PYTHONPATH", ""))
    path = os.pathsep.join(map(str, sources))
    result = subprocess.run([sys.executable, "tools/make_reference.py", "--check"], cwd=ROOT, capture_output=True,
                            text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert result.returncode == 0, result.stderr


def publish() -> ModuleType:
    """tools/publish.py as a module."""
    spec = importlib.util.spec_from_file_location("publish", ROOT / "tools/publish.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(markers: re.Pattern[str], document: str = "README.md") -> str:
    """What stands between a document's markers."""
    found = markers.search((ROOT / document).read_text())
    assert found is not None, f"{document} lacks the markers {markers.pattern}"
    return found[0].removeprefix(found[1]).removesuffix(found[2])


def test_the_documents_show_the_published_figures():
    module = publish()
    summary = ROOT / "results/demo/summary.json"
    expected = module.table(json.loads(summary.read_text())) if summary.exists() else ""
    advice = ("run `make publish` after `make demo` or `bench`, or `make evidence ARGS=--summary-only`; the tables are "
              "never edited by hand")
    assert shown(module.MARKERS) == expected, advice
    assert shown(module.EVIDENCE_MARKERS) == module.evidence_table(), advice
    decode = module.decode_table(json.loads(module.DECODE.read_text())) if module.DECODE.exists() else ""
    assert shown(module.DECODE_MARKERS, "docs/explanation.md") == decode, advice
    late = json.loads(module.DELAY.read_text())["modes"]
    execute = module.execute_table(json.loads(module.EXECUTE.read_text()), late)
    assert shown(module.EXECUTE_MARKERS, "docs/explanation.md") == execute, advice


def test_tracked_files_name_no_machine_and_no_registry():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: which files are tracked is unknown")
    # Written in parts, so that this file does not match itself.
    paths = "|".join(f"/{folder}/" for folder in ("root", "home", "work", "Users"))
    hosts = "|".join(("py" + r"pi\.org", "python" + "hosted", "arti" + "factory", "jf" + r"rog\.io",
                      "index" + "-url", "download" + r"\.pytorch"))
    pattern = re.compile(rf"(?<![\w.)>}}])(?:{paths})\w|{hosts}")
    hits = []
    for name in filter(None, listed.stdout.split("\0")):
        file = ROOT / name
        if not file.is_file() or file.is_symlink() or file.suffix in (".png", ".safetensors"):
            continue
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
            if pattern.search(line):
                hits.append(f"{name}:{number}: {line.strip()[:100]}")
    assert not hits, "\n".join(hits)
