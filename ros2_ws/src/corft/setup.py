import os
from pathlib import Path

from setuptools import setup

SHARE = "share/corft"


def share_tree(folder: str) -> list[tuple[str, list[str]]]:
    """data_files entries that install ``folder`` and what lies below it under share/corft."""
    entries = []
    for root, _, names in os.walk(folder, followlinks=True):
        files = [str(Path(root, name)) for name in sorted(names) if not name.endswith(".pyc")]
        if files and "__pycache__" not in root:
            entries.append((str(Path(SHARE, root)), files))
    return entries


NODES = ("camera_node", "policy_node", "executor_node", "cell_node", "teleop_node", "lifecycle_manager")
PROGRAMS = ("bag_to_dataset", "dataset", "record", "doctor", "trainer", "export_policy", "evaluate_live", "demo",
            "policy_server")

setup(
    name="corft",
    version="0.4.0",
    packages=["corft", "corft.cell", "corft.executor", "corft.policy", "corft.recording"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/corft"]),
        (SHARE, ["package.xml"]),
        *share_tree("launch"),
        *share_tree("config"),
    ],
    entry_points={"console_scripts": [f"{name} = corft.{name}:main" for name in NODES + PROGRAMS]},
    python_requires=">=3.11",
    license="Apache-2.0",
    description="ROS 2 nodes of corft",
    maintainer="corft maintainers",
    maintainer_email="maintainers@corft.org",
)
