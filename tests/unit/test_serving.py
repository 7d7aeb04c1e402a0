"""A policy asked over a real socket: equal bits, a bad network, a server that goes and returns, robots taking turns."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from faults.channel import delayed, dropped, duplicated, reordered
from network_relay import Relay
from policy_servers import ANY_PORT, environment, free_port, server_process, serving
from ros.tiny_policy import INSTRUCTIONS, make_tiny_checkpoint
from safetensors.numpy import save

from corft_core.contract import Contract
from corft_core.data.history import Spacing
from corft_core.errors import CorftError
from corft_core.policy.config import HistoryConfig
from corft_core.prediction import ChunkPrediction
from corft_core.serving import protocol
from corft_core.serving.__main__ import main
from corft_core.serving.client import RemotePolicy
from corft_core.serving.interface import NoAnswerError, PolicyInfo, Request, Seen, ServerError
from corft_core.serving.keys import make_keys
from corft_core.serving.local import LocalPolicy, fingerprint
from corft_core.serving.server import PolicyServer

ROOT = Path(__file__).parents[2]
CONTRACT = Contract.load(ROOT / "ros2_ws/src/corft/config/panda_cell/contract.yaml")
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("serving") / "co_rft", CONTRACT)


@pytest.fixture(scope="module")
def local(checkpoint: Path) -> LocalPolicy:
    return LocalPolicy(checkpoint)


class Answering:
    """In the place of a network: answers at once, or when it may, and remembers what it was asked."""

    def __init__(self, info: PolicyInfo) -> None:
        self.info, self.asked = info, []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def chunk(self, request: Request) -> ChunkPrediction:
        self.asked.append(request.seed)
        assert self.may_answer.wait(PATIENCE_S)
        if request.instruction == "fail":
            raise ValueError("out of memory")
        return ChunkPrediction(chunk_of(request.seed), np.zeros(1))

    def close(self) -> None:
        pass


def chunk_of(seed: int) -> np.ndarray:
    """What `Answering` answers."""
    return np.full((1, 10, len(CONTRACT.action_names)), float(seed))


@pytest.fixture
def answering(local: LocalPolicy) -> Answering:
    return Answering(local.info)


def asking(address: str, **options: Any) -> contextlib.closing[RemotePolicy]:
    return contextlib.closing(RemotePolicy(address, **{"robot": "panda", "timeout_s": PATIENCE_S, **options}))


def request(seed: int, **more: Any) -> Request:
    rng = np.random.default_rng(seed)
    state = np.append(CONTRACT.robot.home_rad, 0.5) + rng.normal(0, 0.01, 8)
    images = {c.name: rng.integers(0, 256, (*c.size, 3), dtype=np.uint8) for c in CONTRACT.cameras}
    return Request(Seen(seed * 10**8, more.pop("images", images), more.pop("state", state)),
                   **{"instruction": INSTRUCTIONS[0], "seed": seed, **more})


def small(seed: int, **more: Any) -> Request:
    """Without pictures, for `Answering`."""
    return request(seed, images={}, **more)


def until(condition: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_remote_chunk_is_the_local_one_bit_for_bit(local: LocalPolicy, checkpoint: Path) -> None:
    plan = np.tile(np.append(CONTRACT.robot.home_rad, 1.0), (10, 1))
    with serving(LocalPolicy(checkpoint)) as server, asking(server.address) as remote:
        assert remote.info == local.info and remote.info.checkpoint == fingerprint(checkpoint)
        for asked in (request(0), request(1, plan=plan), request(2, plan=plan, frozen=3), request(2, plan=plan)):
            here, there = local.chunk(asked), remote.chunk(asked)
            assert here.actions.tobytes() == there.actions.tobytes() and here.value.tobytes() == there.value.tobytes()
        again = remote.chunk(request(0))
        assert again.actions.tobytes() == local.chunk(request(0)).actions.tobytes(), "noise is the request's own"
        assert local.chunk(replace(request(0), seed=1)).actions.tobytes() != again.actions.tobytes()


def test_a_policy_with_a_memory_sees_the_same_past_over_the_network(tmp_path: Path) -> None:
    folder = make_tiny_checkpoint(tmp_path / "memory", CONTRACT, history=HistoryConfig(steps=3, stride=2))
    local = LocalPolicy(folder)
    missed = request(4).now
    run = [request(0, run="a"), request(2, run="a", begins=False), request(6, run="a", begins=False, past=(missed,))]
    with serving(LocalPolicy(folder)) as server, asking(server.address) as remote:
        assert remote.info.spacing == Spacing(3, 2 * CONTRACT.step_ns)
        for asked in run:
            other = replace(asked, run="b", begins=True)
            assert remote.chunk(other).actions.tobytes() == local.chunk(other).actions.tobytes()
            assert remote.chunk(asked).actions.tobytes() == local.chunk(asked).actions.tobytes()
        alone = replace(run[2], run="c", begins=True, past=())
        assert remote.chunk(alone).actions.tobytes() != remote.chunk(run[2]).actions.tobytes()
    with serving(LocalPolicy(folder)) as server, asking(server.address) as remote, \
            pytest.raises(ServerError, match="was the policy server restarted"):
        remote.chunk(run[2])


def test_jpeg_pictures_give_nearly_the_same_chunk(local: LocalPolicy, checkpoint: Path) -> None:
    smooth = {c.name: np.broadcast_to(np.linspace(0, 255, c.size[1], dtype=np.uint8)[:, None], (*c.size, 3))
              for c in CONTRACT.cameras}
    with serving(LocalPolicy(checkpoint)) as server, asking(server.address, images="jpeg") as remote:
        asked = request(0, images=smooth)
        np.testing.assert_allclose(remote.chunk(asked).actions, local.chunk(asked).actions, atol=0.02)


def test_a_device_that_is_not_there_is_told(checkpoint: Path) -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(CorftError, match=f"device '{device}' cannot be used here"):
            LocalPolicy(checkpoint, device)


def test_the_robots_side_needs_no_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import corft_core.serving.client"
    subprocess.run([sys.executable, "-c", program], check=True, env=environment())


def test_late_answers_are_dropped_and_the_next_question_gets_its_own(answering: Answering) -> None:
    with serving(answering) as server, Relay(server.address) as relay, asking(relay.address) as remote:
        relay.to_robot = delayed(0.6, 0.6, random.Random(0))
        remote.timeout_s = 0.2
        with pytest.raises(NoAnswerError, match=r"has not answered within 0\.2 s"):
            remote.chunk(small(1))
        remote.timeout_s = PATIENCE_S
        began_s = time.monotonic()
        assert np.array_equal(remote.chunk(small(2)).actions, chunk_of(2))
        assert time.monotonic() - began_s >= 0.6
        assert (remote.late, remote.unanswered) == (1, 1)
        found = remote.statistics()
        assert found["late_answers"] == 1 and found["transport_p50_s"] >= 0.6


def test_lost_messages_cost_their_question_only(answering: Answering) -> None:
    rng = random.Random(0)
    with serving(answering) as server, Relay(server.address) as relay, asking(relay.address) as remote:
        relay.to_server, relay.to_robot = dropped(0.2, rng), dropped(0.2, rng)
        remote.timeout_s = 0.3
        answered = 0
        for seed in range(30):
            with contextlib.suppress(NoAnswerError):
                assert np.array_equal(remote.chunk(small(seed)).actions, chunk_of(seed))
                answered += 1
        assert answered + remote.unanswered == 30 and answered >= 10 and remote.unanswered >= 3


def test_doubled_and_overtaking_messages_never_give_another_questions_chunk(answering: Answering) -> None:
    rng = random.Random(1)
    with serving(answering) as server, Relay(server.address) as relay, asking(relay.address) as remote:
        for to_server, to_robot in ((duplicated(3, 0.01), duplicated(2, 0.05)),
                                    (reordered(rng), reordered(rng)),
                                    (delayed(0.0, 0.3, rng), delayed(0.0, 0.3, rng))):
            relay.to_server, relay.to_robot = to_server, to_robot
            remote.timeout_s = 0.3
            for seed in range(15):
                with contextlib.suppress(NoAnswerError):
                    assert np.array_equal(remote.chunk(small(seed)).actions, chunk_of(seed))
        assert remote.late > 0 and server.counts.superseded > 0


ON_THE_WAY_S = 1.0
"""For messages to pass the sockets' threads, on a busy machine too: a server that answers does not look at them."""


def test_of_a_robot_that_hurries_only_the_newest_question_waits(answering: Answering) -> None:
    with serving(answering) as server, raw_socket(server.address) as robot:
        answering.may_answer.clear()
        for number in (1, 2, 3, 5, 4):
            ask(robot, "hasty", number, answering)
            until(lambda: answering.asked)
        time.sleep(ON_THE_WAY_S)
        answering.may_answer.set()
        numbers = [protocol.unpack(robot.recv_multipart()).number for _ in range(2)]
        assert numbers == [1, 5] and answering.asked == [1, 5] and server.counts.superseded == 3


def test_robots_take_turns(answering: Answering) -> None:
    with serving(answering) as server, raw_socket(server.address) as robots:
        answering.may_answer.clear()
        ask(robots, "a", 1, answering)
        until(lambda: answering.asked)
        for session, number in (("a", 2), ("a", 3), ("b", 10), ("b", 11), ("c", 20)):
            ask(robots, session, number, answering)
        time.sleep(ON_THE_WAY_S)
        answering.may_answer.set()
        assert [protocol.unpack(robots.recv_multipart()).number for _ in range(4)] in ([1, 11, 20, 3], [1, 20, 11, 3])


def test_garbage_another_version_and_oversize_never_end_the_server(answering: Answering) -> None:
    rng = random.Random(2)
    with serving(answering, max_message_bytes=100_000) as server, asking(server.address) as remote:
        with raw_socket(server.address) as stranger:
            for _ in range(100):
                stranger.send_multipart([rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 5))])
            stranger.send_multipart(protocol.pack(protocol.Message("dance", "a", 1)))
            stranger.send_multipart([b'{"corft_policy": 2, "kind": "hello"}', save({})])
            refusal = protocol.unpack(stranger.recv_multipart())
            assert refusal.kind == "error" and "protocol 2, this corft speaks 1" in refusal.get("reason", str)
            stranger.send_multipart([bytes(200_000)])
        assert np.array_equal(remote.chunk(small(1)).actions, chunk_of(1))
        assert server.counts.malformed == 102 and server.counts.answered == 1
        with pytest.raises(ServerError, match=r"an observation has 0\.1 MiB, the policy server takes 0\.1"):
            remote.chunk(request(1, images={"front": np.zeros((200, 200, 3), np.uint8)}))


def test_what_the_policy_refuses_or_fails_at_is_told_and_the_next_is_answered(
        local: LocalPolicy, answering: Answering) -> None:
    with serving(answering) as server, asking(server.address) as remote:
        with pytest.raises(ServerError, match="inference raised ValueError: out of memory"):
            remote.chunk(small(1, instruction="fail"))
        assert np.array_equal(remote.chunk(small(2)).actions, chunk_of(2)) and server.counts.refused == 1
    with serving(local) as server, asking(server.address) as remote:
        with pytest.raises(ServerError, match=r"the policy sees the cameras .*got \[\]"):
            remote.chunk(small(1))
        with pytest.raises(ServerError, match="state must be finite"):
            remote.chunk(request(1, state=np.full(8, np.nan)))


def test_a_server_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind(ANY_PORT)

        def answer() -> None:
            address, *_ = socket.recv_multipart()
            socket.send_multipart([address, b'{"corft_policy": 7}', save({})])

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ServerError, match="protocol 7, this corft speaks 1: install the same corft"):
            RemotePolicy(socket.last_endpoint.decode())
        thread.join()


def test_addresses_that_are_none_or_nobodys_are_told() -> None:
    with pytest.raises(CorftError, match="expected tcp://host:port"):
        RemotePolicy("somewhere")
    with pytest.raises(NoAnswerError, match=r"no connection to the policy server at tcp://127.0.0.1:9 .*is it running"):
        RemotePolicy("tcp://127.0.0.1:9", greeting_s=0.2)


def test_with_a_key_only_those_who_have_it_are_answered(answering: Answering, tmp_path: Path) -> None:
    public, secret = make_keys(tmp_path / "lab")
    other, _ = make_keys(tmp_path / "other")
    assert secret.stat().st_mode & 0o077 == 0
    with pytest.raises(CorftError, match="exists"):
        make_keys(tmp_path / "lab")
    with serving(answering, secret_key=secret) as server:
        with asking(server.address, server_key=public) as remote:
            assert np.array_equal(remote.chunk(small(1)).actions, chunk_of(1))
        for key in (None, other):
            with pytest.raises(NoAnswerError, match="same key file"):
                RemotePolicy(server.address, server_key=key, greeting_s=0.5)
    with pytest.raises(CorftError, match="holds no secret key"):
        PolicyServer(answering, ANY_PORT, public)
    with pytest.raises(CorftError, match="is no key file"):
        PolicyServer(answering, ANY_PORT, tmp_path / "nothing")


def test_an_address_in_use_is_told(answering: Answering) -> None:
    with serving(answering) as server, pytest.raises(CorftError, match=r"can't serve at .*free port"):
        PolicyServer(answering, server.address)


def test_a_killed_server_is_missed_and_found_again_and_another_checkpoint_is_refused(
        checkpoint: Path, local: LocalPolicy, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    with server_process(checkpoint, address) as first, asking(address, greeting_s=PATIENCE_S) as remote:
        assert remote.chunk(request(1)).actions.tobytes() == local.chunk(request(1)).actions.tobytes()
        first.kill()
        first.wait()
        remote.timeout_s = 0.3
        with pytest.raises(NoAnswerError):
            remote.chunk(request(2))
        with server_process(checkpoint, address) as second:
            remote.timeout_s = PATIENCE_S
            assert remote.chunk(request(3)).actions.tobytes() == local.chunk(request(3)).actions.tobytes()
            remote.check()
            second.terminate()
            assert second.wait(PATIENCE_S) == 0 and "stopped: 1 chunks" in second.stdout.read()
        other = make_tiny_checkpoint(tmp_path / "other", CONTRACT)
        text = (other / "config.json").read_text()
        (other / "config.json").write_text(text.replace("tiny-test", "other-test"))
        with serving(LocalPolicy(other), address):
            with pytest.raises(ServerError, match=r"another checkpoint.*configure policy_node anew"):
                remote.chunk(request(4))
            with pytest.raises(ServerError, match="other-test"):
                remote.check()
            with asking(address) as anew:
                assert anew.info.policy_id == "other-test" and anew.chunk(request(4)).actions.shape == (1, 10, 8)


def test_the_program_refuses_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (([], "--checkpoint is missing"), (["--checkpoint", str(tmp_path)], "is no checkpoint"),
                             (["--checkpoint", str(tmp_path), "--max-message-mb", "0"], "--max-message-mb must be")):
        assert main(arguments) == 2 and words in capsys.readouterr().err
    assert main(["--make-key", str(tmp_path / "lab")]) == 0 and (tmp_path / "lab.key").exists()


def ask(socket: zmq.Socket[bytes], session: str, number: int, policy: Answering) -> None:
    """Send a question without waiting for its answer."""
    header, arrays = protocol.pack_request(small(number), "raw")
    socket.send_multipart(protocol.pack(protocol.Message(
        "chunk", session, number, header | {"checkpoint": policy.info.checkpoint}, arrays)))


@contextlib.contextmanager
def raw_socket(address: str) -> Iterator[zmq.Socket[bytes]]:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger, socket.rcvtimeo = 0, int(PATIENCE_S * 1e3)
        socket.connect(address)
        yield socket
