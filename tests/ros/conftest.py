"""Every test module talks on a DDS domain of its own, so that modules never hear each other."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that fails here is run once more, and the report names it: real processes talk over real DDS, and a
    machine that is busy with something else may starve one of them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="module", autouse=True)
def ros_domain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A ROS_DOMAIN_ID and ROS_HOME for this module, also in the environment of the processes it starts."""
    domain = 40 + (zlib.crc32(request.module.__name__.encode()) + os.getpid()) % 60
    before = {key: os.environ.get(key) for key in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_HOME")}
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["ROS_HOME"] = str(tmp_path_factory.mktemp("ros_home"))
    yield domain
    for key, value in before.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@pytest.fixture
def rclpy_context(ros_domain: int) -> Iterator[None]:
    """An initialised default rclpy context, shut down afterwards."""
    from ros.graph import ros_context

    with ros_context():
        yield
