"""Whether the policy server is there, has a policy for this robot, and answers in time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from corft.doctor_machine import Check
from corft.policy.checks import check_robot
from corft_core.contract import Contract
from corft_core.errors import CorftError
from corft_core.serving.client import GREETING_S, RemotePolicy
from corft_core.serving.interface import nothing_seen

ASKED, ANSWER_S = 20, 10.0


def server_checks(address: str, key: str | None, contract: Contract, greeting_s: float = GREETING_S) -> Iterator[Check]:
    """Greets the server and asks it for some chunks of black pictures."""
    try:
        policy = RemotePolicy(address, robot="doctor", timeout_s=ANSWER_S, greeting_s=greeting_s,
                              server_key=None if key is None else Path(key).expanduser())
    except CorftError as error:
        yield Check("connection", "ERROR", str(error), "start it: ros2 run corft policy_server --checkpoint FOLDER "
                                                       "--bind tcp://0.0.0.0:5555, and open the port in its firewall")
        return
    try:
        info = policy.info
        yield Check("connection", "ok", f"{address}: policy {info.policy_id}, checkpoint {info.checkpoint}")
        try:
            check_robot(info.contract, contract, f"at {address}")
        except CorftError as error:
            yield Check("policy", "ERROR", str(error), "serve a checkpoint that was trained with this contract")
            return
        yield Check("policy", "ok", "it was trained for this robot; learned: " + "; ".join(info.instructions))
        yield _latency(policy, contract)
    finally:
        policy.close()


def _latency(policy: RemotePolicy, contract: Contract) -> Check:
    """Time from question to chunk, the first ones left out, beside what half a chunk lasts."""
    seconds = []
    request = replace(nothing_seen(policy.info), run="doctor")
    try:
        for number in range(ASKED):
            now = replace(request.now, stamp_ns=number * contract.step_ns)
            began_s = time.monotonic()
            policy.chunk(replace(request, now=now, begins=number == 0))
            seconds.append(time.monotonic() - began_s)
    except CorftError as error:
        return Check("chunks", "ERROR", str(error), "look at the server's own output")
    p50, p95 = 1e3 * np.percentile(seconds[ASKED // 4:], (50, 95))
    network = 1e3 * policy.statistics()["transport_p50_s"]
    half_ms = 0.5e3 * policy.info.horizon / contract.rate_hz
    seen = f"{p50:.0f} ms each, 95 % within {p95:.0f} ms, of which {network:.0f} ms are not inference"
    if p95 < half_ms:
        return Check("chunks", "ok", seen)
    return Check("chunks", "warning", f"{seen}; half a chunk lasts {half_ms:.0f} ms",
                 "chunks will come late: use a GPU there (--device cuda), a wired network, server_images:=jpeg")
