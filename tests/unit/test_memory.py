"""Memory: which observations are looked back at, in data and live, and what the networks make of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_data import RED, small_config, square_data

from corft_core.data.episode import Episode
from corft_core.data.history import History, Spacing, past_rows
from corft_core.errors import CorftError
from corft_core.evaluation.rollout import run_trials
from corft_core.features import StateFeatures
from corft_core.learning.config import TrainConfig
from corft_core.learning.frames import CachedFrames, LiveFrames, Samples, random_shift
from corft_core.learning.prepared import Prepared
from corft_core.learning.trainer import train
from corft_core.learning.training_data import EpisodesInMemory
from corft_core.policy import Policy
from corft_core.policy.backbones import make_backbone
from corft_core.policy.backbones.small import FAMILIES
from corft_core.policy.config import HistoryConfig
from corft_core.policy.memory import Past, make_memory
from corft_core.policy.options import ConfigError

KINDS = ("window", "lstm", "transformer")
MEMORY = {"policy__history__steps": 3, "policy__history__stride": 2}
CPU = torch.device("cpu")

# Which observations


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5), steps=st.integers(1, 5), stride=st.integers(1, 6),
)
def test_rows_looked_back_at_equal_brute_force(lengths: list[int], steps: int, stride: int) -> None:
    episode = np.repeat(np.arange(len(lengths)), lengths)
    rows, seen = past_rows(episode, Spacing(steps, stride))
    first = np.cumsum([0, *lengths])
    for row, number in enumerate(episode):
        for place in range(steps):
            wanted = row - (steps - 1 - place) * stride
            assert seen[row, place] == (wanted >= first[number])
            assert rows[row, place] == max(wanted, first[number])
    assert np.array_equal(rows[:, -1], np.arange(len(episode))) and seen[:, -1].all()


@given(
    stamps=st.lists(st.integers(0, 100), min_size=1, max_size=12, unique=True), steps=st.integers(1, 5),
    stride=st.integers(1, 20), order=st.randoms(use_true_random=False),
)
def test_live_history_takes_the_newest_sample_at_or_before_each_time(
    stamps: list[int], steps: int, stride: int, order: object
) -> None:
    history: History[int] = History(Spacing(steps, stride))
    tick = max(stamps)
    order.shuffle(stamps)  # type: ignore[attr-defined]
    for stamp in stamps:
        history.add(stamp, "go", stamp)
    found, seen = history.look_back(tick, "go", tick)
    for place in range(steps):
        wanted = tick - (steps - 1 - place) * stride
        known = [stamp for stamp in stamps if stamp <= wanted]
        assert seen[place] == bool(known)
        assert found[place] == (max(known) if known else min(stamps))


@settings(deadline=None)
@given(
    length=st.integers(1, 40), steps=st.integers(1, 5), stride=st.integers(1, 6), every=st.integers(1, 7),
    ahead_of_time=st.booleans(),
)
def test_live_history_on_the_grid_equals_the_data_sets(
    length: int, steps: int, stride: int, every: int, ahead_of_time: bool
) -> None:
    """Whether what will be looked back at is remembered when it comes, or taken from the stream's buffer later."""
    spacing = Spacing(steps, stride)
    rows, expected = past_rows(np.zeros(length, int), spacing)
    history: History[int] = History(spacing)
    for tick in range(length):
        if tick % every:
            if ahead_of_time and spacing.serves(every - tick % every, every):
                history.add(tick, "go", tick)
            continue
        if not ahead_of_time:
            for earlier in history.lacking(tick):
                history.add(earlier, "go", earlier)
        assert history.lacking(tick) == []
        found, seen = history.look_back(tick, "go", tick)
        assert found == rows[tick].tolist() and np.array_equal(seen, expected[tick])
        assert len(history) <= spacing.span + 1


def test_history_begins_anew_with_an_instruction_a_reset_and_time_going_back() -> None:
    history: History[str] = History(Spacing(2, 10))
    assert history.look_back(0, "red", "a")[1].tolist() == [False, True]
    assert history.look_back(10, "red", "b")[0] == ["a", "b"]
    assert history.look_back(20, "blue", "c") == (["c", "c"], pytest.approx([False, True]))
    assert history.look_back(5, "blue", "d")[0] == ["d", "d"]
    assert history.look_back(15, "blue", "e")[0] == ["d", "e"]
    history.reset()
    assert history.look_back(25, "blue", "f")[0] == ["f", "f"]


# The networks


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_for_unseen_observations_does_not_matter(kind: str) -> None:
    torch.manual_seed(0)
    memory = make_memory(8, HistoryConfig(steps=3, kind=kind))
    assert memory is not None
    embeddings, seen = torch.randn(2, 3, 8), torch.tensor([[False, True, True], [False, False, True]])
    other = torch.where(seen[..., None], embeddings, torch.randn(2, 3, 8))
    assert torch.equal(memory(embeddings, seen), memory(other, seen))
    changed = embeddings.clone()
    changed[0, 1] *= -1.0
    assert not torch.allclose(memory(embeddings, seen)[0], memory(changed, seen)[0])
    assert not torch.allclose(memory(embeddings, seen), memory(embeddings, torch.ones_like(seen)))


def test_no_memory_adds_no_weight_and_old_checkpoints_load(tmp_path: Path) -> None:
    run = train(square_data(), tmp_path / "run", small_config(co_rft__steps=0, co_rft__warmup=0), quiet=True)
    folder = run / "checkpoints/sft"
    header = json.loads((folder / "config.json").read_text())
    assert header["policy"].pop("history")["steps"] == 1 and header["format_version"] == 2
    shutil.copytree(folder, tmp_path / "old")
    (tmp_path / "old/config.json").write_text(json.dumps(header))
    new, old = Policy.load(folder), Policy.load(tmp_path / "old")
    assert not any("memory" in name for name in new.bundle.actor.state_dict())
    dataset = square_data()
    seen = {name: pictures[:2] for name, pictures in dataset.images().items()}
    chunks = [policy.act(seen, dataset.state[:2], [RED] * 2, torch.Generator().manual_seed(0)).actions
              for policy in (new, old)]
    assert np.array_equal(*chunks)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose a divisor"):
        small_config(policy__history__kind="transformer", policy__history__heads=5)


def test_images_of_one_observation_are_shifted_alike() -> None:
    images = torch.randint(0, 255, (1, 2, 12, 12, 3), dtype=torch.uint8).repeat(6, 1, 1, 1, 1)
    shifted = random_shift(images, 3, together=3)
    for first in (0, 3):
        assert torch.equal(shifted[first], shifted[first + 1]) and torch.equal(shifted[first], shifted[first + 2])
    torch.manual_seed(1)
    alone = random_shift(images[:2], 3)
    torch.manual_seed(1)
    assert torch.equal(random_shift(images, 3, together=3)[[0, 3]], alone)


# Data set and live stream


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_replayed_episodes_give_the_embeddings_of_the_data_set(kind: str, live: bool, tmp_path: Path) -> None:
    """Every frame of an episode through the cached or trained backbone's frames, and as a robot would meet them."""
    options = {"policy__backbone_options": {"channels": 16, "text_dim": 16, "trainable": "all" if live else "none"}}
    config = small_config(
        policy__history__kind=kind, co_rft__steps=0, co_rft__warmup=0, sft__steps=2, **MEMORY, **options
    )
    replay(config, live, tmp_path)


@pytest.mark.parametrize("trainable", ["none", "lora:2"])
def test_replayed_episodes_give_the_embeddings_of_the_data_set_with_a_vision_language_model(
    trainable: str, tmp_path: Path
) -> None:
    """And both stages train: such a backbone encodes pictures and instruction together."""
    torch.manual_seed(0)
    FAMILIES["smolvlm"](tmp_path / "model")
    replay(small_config(
        policy__history__kind="transformer", policy__backbone=f"hf:{tmp_path / 'model'}", sft__steps=2, sft__batch=4,
        policy__backbone_options={"trainable": trainable, "tokens": 4}, co_rft__steps=2, co_rft__warmup=1,
        co_rft__actor_steps=1, check_frames=0, **MEMORY), trainable != "none", tmp_path)


def replay(config: TrainConfig, live: bool, tmp_path: Path) -> None:
    dataset = square_data(episodes=3, steps=7)
    policy = Policy.load(train(dataset, tmp_path / "run", config, quiet=True) / "checkpoints/sft")
    prepared = Prepared.of(dataset, config, CPU)
    backbone = policy.bundle.backbone
    frames = (LiveFrames(backbone, prepared.images, prepared.samples, CPU, 0) if live
              else CachedFrames.compute(backbone, prepared.images, prepared.samples, CPU))
    images, step_ns = dataset.images(), 100_000_000
    with torch.inference_mode():
        expected = policy.bundle.actor.embed(frames.observe(torch.arange(dataset.num_frames)))
        for row, number in enumerate(dataset.episode_index):
            if row == 0 or dataset.episode_index[row - 1] != number:
                history = policy.new_history()
            seen = policy.observation(
                {name: pictures[row : row + 1] for name, pictures in images.items()}, dataset.state[row : row + 1],
                [dataset.instructions[number]], [history], [row * step_ns],
            )
            assert seen.past is not None and prepared.samples.past is not None
            known = prepared.samples.past
            assert torch.equal(seen.past.seen, known.seen[row : row + 1])
            assert torch.equal(seen.state[seen.past.frame], prepared.samples.state[known.frame[row : row + 1]])
            found = policy.bundle.actor.embed(seen)[0]
            torch.testing.assert_close(found, expected[row], atol=1e-5 if live else 5e-3, rtol=1e-4)


def test_frames_shared_by_several_observations_are_encoded_once() -> None:
    samples = Samples(
        state=torch.randn(10, 3), actions=torch.zeros(10, 1, 2), valid=torch.ones(10, 1, dtype=torch.bool),
        imitation_actions=torch.zeros(10, 1, 2), imitation_valid=torch.ones(10, 1, dtype=torch.bool),
        keyframe=torch.zeros(10, 2), text_index=torch.zeros(10, dtype=torch.long), instructions=("go",),
        past=Past(*map(torch.from_numpy, past_rows(np.zeros(10), Spacing(4, 1)))),
    )
    frames = CachedFrames(samples, torch.zeros(10, 0, 0, 0), torch.zeros(1, 0), samples.text_index)
    index = torch.tensor([9, 2, 8])
    seen = frames.observe(index)
    assert len(seen.state) == len({9, 8, 7, 6, 5, 2, 1, 0}) and seen.past is not None
    assert torch.equal(seen.state[seen.past.frame], samples.state[samples.past.frame[index]])


# Tasks that need it

FEATURES = StateFeatures(("cue", "clock", "gripper"), ("side", "gripper"), 10)
SHOWN, LENGTH = 3, 10


class CueWorld:
    """A cue, −1 or 1, is shown at the first three steps; every action should name it. Success: eight of ten did."""

    features, instruction = FEATURES, "name the cue"
    target_xy_m = (0.0, 0.0)

    def reset(self, scene_id: str) -> None:
        self.cue = 1.0 if int(scene_id) % 2 else -1.0
        self.steps = self.right = 0

    def observe(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return {}, np.array([self.cue if self.steps < SHOWN else 0.0, 0.1 * self.steps, 1.0])

    def start_chunk(self, actions: np.ndarray) -> None:
        pass

    def step(self, action: np.ndarray) -> None:
        self.steps += 1
        self.right += bool(action[0] * self.cue > 0.5)

    @property
    def success(self) -> bool:
        return self.steps == LENGTH and self.right >= 8


def cue_data(episodes: int = 12) -> EpisodesInMemory:
    made, world = [], CueWorld()
    for number in range(episodes):
        world.reset(str(number))
        states, action = [], np.array([world.cue, 1.0], np.float32)
        for _ in range(LENGTH):
            states.append(world.observe()[1].astype(np.float32))
            world.step(action)
        made.append(Episode({}, np.stack(states), np.tile(action, (LENGTH, 1)), world.instruction, True, str(number)))
    return EpisodesInMemory(FEATURES, made)


def cue_config(**pairs: object) -> TrainConfig:
    return small_config(**({
        "policy__backbone": "none", "policy__backbone_options": {}, "policy__horizon": 2, "policy__head__kind": "chunk",
        "sft__steps": 80, "sft__batch": 32, "sft__lr": 5e-3, "sft__ema": 0.9, "sft__state_noise": 0.0,
        "policy__history__steps": 4, "policy__history__stride": 3, "co_rft__steps": 0, "co_rft__warmup": 0,
        "check_frames": 0,
    } | pairs))


def solved(policy: Policy, replan_steps: int = 2) -> int:
    """Of 4 trials."""
    worlds = [CueWorld() for _ in range(4)]
    return sum(result.success for result in run_trials(policy, worlds, list("0123"), LENGTH, replan_steps=replan_steps))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_shown_before_is_learned_and_remembered(kind: str, tmp_path: Path) -> None:
    run = train(cue_data(), tmp_path / "run", cue_config(policy__history__kind=kind), quiet=True)
    policy = Policy.load(run / "checkpoints/sft")
    assert solved(policy) == 4  # a chunk every 2 steps, observations 3 steps apart
    assert solved(policy, replan_steps=1) == 4


def test_without_memory_it_cannot_be_learned(tmp_path: Path) -> None:
    run = train(cue_data(), tmp_path / "run", cue_config(policy__history__steps=1), quiet=True)
    assert solved(Policy.load(run / "checkpoints/sft")) == 0


@pytest.mark.parametrize("head", ["flow", "tokens"])
def test_both_stages_and_the_offline_check_remember(head: str, tmp_path: Path) -> None:
    pairs = {"policy__head__kind": head, "sft__steps": 150, "co_rft__steps": 10, "co_rft__train_encoder": True,
             "check_frames": 32, "policy__head__tokens__vocabulary": 16, "policy__selection__samples": 4}
    run = train(cue_data(), tmp_path / "run", cue_config(**pairs), quiet=True)
    policy = Policy.load(run / "checkpoints/co_rft")
    assert policy.bundle.critic is not None and solved(policy) == 4
    report = json.loads((run / "offline_check.json").read_text())["checkpoints"]
    assert report["sft"]["action_error"][0] < 0.2 and report["co_rft"]["action_error"][0] < 0.5


def test_history_must_be_given_and_the_message_says_how(tmp_path: Path) -> None:
    run = train(cue_data(2), tmp_path / "run", cue_config(sft__steps=1), quiet=True)
    policy = Policy.load(run / "checkpoints/sft")
    with pytest.raises(CorftError, match=r"policy\.new_history\(\)"):
        policy.act({}, np.zeros((1, 3)), ["name the cue"])


def test_each_image_is_encoded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = small_config(co_rft__steps=0, co_rft__warmup=0, sft__steps=1, check_frames=0, **MEMORY)
    dataset = square_data(episodes=2, steps=6)
    policy = Policy.load(train(dataset, tmp_path / "run", config, quiet=True) / "checkpoints/sft")
    encoded: list[int] = []
    backbone = type(make_backbone("tiny", cameras=1, image_size=(32, 32)))
    encode = backbone.encode_images
    monkeypatch.setattr(backbone, "encode_images", lambda self, images: (
        encoded.append(len(images)), encode(self, images))[1])
    history, images = policy.new_history(), dataset.images()
    for row in range(6):
        policy.act({name: pictures[row : row + 1] for name, pictures in images.items()}, dataset.state[row : row + 1],
                   [RED], histories=[history], stamps_ns=[row * 100_000_000])
    assert encoded == [1] * 6
