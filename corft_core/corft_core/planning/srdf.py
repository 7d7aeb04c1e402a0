"""An SRDF for a robot that has none: which pairs of links may touch, found by sampling.

Pairs that touch because of how the robot is built are not collisions: neighbours in the tree, and pairs that touch in
nearly every random posture. Everything else stays checked. MoveIt's setup assistant does the same.
"""

from __future__ import annotations

import argparse
import sys
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pinocchio as pin

from corft_core.cli import run_main
from corft_core.contract import Contract
from corft_core.files import write_text
from corft_core.planning.interface import PlanningError

SAMPLES = 500
ALWAYS = 0.95   # share of the postures
EPILOG = """example:
  python3 -m corft_core.planning.srdf --contract contract.yaml --out robot.srdf

Look through the pairs in the file, then name it in the contract: robot.description: robot.urdf:robot.srdf
exit codes: 0 written, 2 the description can't be read
"""


def sampled_srdf(urdf: str, group: tuple[str, ...] = (), samples: int = SAMPLES) -> str:
    """SRDF text for a URDF text whose mesh paths are absolute. ``group``: joints of a group named ``arm``.

    The same URDF gives the same SRDF. Raises PlanningError when a collision mesh can't be read.
    """
    root = ElementTree.fromstring(urdf)
    try:
        model = pin.buildModelFromXML(urdf)
        geometry = pin.buildGeomFromUrdfString(model, urdf, pin.GeometryType.COLLISION)
    except (ValueError, RuntimeError) as error:
        raise PlanningError(f"the robot description cannot be read: {error}") from error
    from corft_core.planning.collision import convex_where_it_is

    for item in geometry.geometryObjects:
        item.geometry = convex_where_it_is(item.geometry)
    geometry.addAllCollisionPairs()
    links = [model.frames[item.parentFrame].name for item in geometry.geometryObjects]
    pairs = [tuple(sorted((links[pair.first], links[pair.second]))) for pair in geometry.collisionPairs]
    touching = dict.fromkeys(pairs, 0)
    data, geometry_data = model.createData(), geometry.createData()
    random = np.random.default_rng(0)
    low, high = np.clip(model.lowerPositionLimit, -np.pi, np.pi), np.clip(model.upperPositionLimit, -np.pi, np.pi)
    for _ in range(samples):
        q = pin.normalize(model, random.uniform(low, high))
        pin.computeCollisions(model, data, geometry, geometry_data, q, False)
        for pair in {pairs[k] for k, result in enumerate(geometry_data.collisionResults) if result.isCollision()}:
            touching[pair] += 1
    neighbours = _neighbours(root, set(links)) | _rigid(geometry, links)
    lines = [f'<robot name={quoteattr(root.get("name", "robot"))}>']
    if group:
        lines += ['  <group name="arm">', *(f"    <joint name={quoteattr(name)}/>" for name in group), "  </group>"]
    for pair in sorted({*touching, *neighbours}):
        if pair in neighbours or touching[pair] >= ALWAYS * samples:
            reason = "Adjacent" if pair in neighbours else "Default"
            lines.append(f"  <disable_collisions link1={quoteattr(pair[0])} link2={quoteattr(pair[1])} "
                         f'reason="{reason}"/>')
    return "\n".join([*lines, "</robot>\n"])


def _rigid(geometry: Any, links: list[str]) -> set[tuple[str, ...]]:
    """Pairs of links that no joint moves against each other."""
    joints = [item.parentJoint for item in geometry.geometryObjects]
    return {tuple(sorted((links[i], links[j]))) for i, j in combinations(range(len(links)), 2)
            if joints[i] == joints[j] and links[i] != links[j]}


def _neighbours(root: ElementTree.Element, with_geometry: set[str]) -> set[tuple[str, ...]]:
    """Pairs of links with geometry and no more than one moving joint, and no other geometry, between them."""
    edges: dict[str, list[tuple[str, bool]]] = {}
    for joint in root.findall("joint"):
        parent, child = joint.find("parent"), joint.find("child")
        if parent is None or child is None:
            continue
        a, b, moves = parent.get("link", ""), child.get("link", ""), joint.get("type") != "fixed"
        edges.setdefault(a, []).append((b, moves))
        edges.setdefault(b, []).append((a, moves))
    found = set()
    for link in with_geometry:
        open_links, seen = [(link, False)], {link}
        while open_links:
            at, moved = open_links.pop()
            for other, moves in edges.get(at, ()):
                if other in seen or (moved and moves):
                    continue
                seen.add(other)
                if other in with_geometry:
                    found.add(tuple(sorted((link, other))))
                if other not in with_geometry or not (moved or moves):
                    open_links.append((other, moved or moves))
    return found


def main() -> int:
    """Write the SRDF of a contract's robot."""
    parser = argparse.ArgumentParser(prog="python3 -m corft_core.planning.srdf", epilog=EPILOG,
                                     description="Write an SRDF for a robot description that has none.",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contract", required=True, help="contract whose robot.description is sampled")
    parser.add_argument("--out", required=True, help="SRDF file to write")
    arguments = parser.parse_args()

    def write() -> None:
        from corft_core.planning.description import resolve_description

        contract = Contract.load(arguments.contract)
        text = sampled_srdf(resolve_description(contract.robot.description).urdf, contract.robot.joints)
        write_text(arguments.out, text)
        print(f"wrote {arguments.out}: {text.count('<disable_collisions')} pairs of links are not checked")

    return run_main(write)


if __name__ == "__main__":
    sys.exit(main())
