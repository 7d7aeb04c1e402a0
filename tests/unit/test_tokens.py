"""Action tokens: what goes in comes out again, and Jacobi decoding gives exactly what decoding one by one gives."""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_data import RED, small_config, square_data, squares
from torch.nn.attention import SDPBackend, sdpa_kernel

from corft_core.learning.trainer import train
from corft_core.policy.config import HeadConfig, TokenConfig
from corft_core.policy.policy import Policy
from corft_core.policy.tokens import decoding
from corft_core.policy.tokens.binning import BinTokenizer
from corft_core.policy.tokens.decoding import (
    Decoded,
    _Finished,
    autoregressive,
    best_token,
    gumbel,
    jacobi,
    jacobi_bidirectional,
)
from corft_core.policy.tokens.fast import FastTokenizer
from corft_core.policy.tokens.head import TokenHead
from corft_core.policy.tokens.transformer import Cache, TokenTransformer

EMBEDDING = 8


def random_model(seed: int) -> tuple[TokenTransformer, torch.Generator]:
    """A model of random size whose tokens depend strongly on each other. In float64: the decoders sum in different
    orders, and only rounding could tell them apart."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    model = TokenTransformer(EMBEDDING, int(rng.integers(2, 20)), int(rng.integers(2, 33)), 16, int(rng.integers(1, 3)),
                             int(rng.choice([1, 2, 4]))).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(float(rng.choice([1.0, 3.0])))
    return model, torch.Generator().manual_seed(seed)


class ManyModels(torch.nn.Module):
    """What a decoder asks of a model, for `count` models of one random size at once; each answers for `each` rows."""

    def __init__(self, seed: int, count: int, each: int) -> None:
        super().__init__()
        self.one, _ = random_model(seed)
        self.count, self.each, self.length = count, each, self.one.length
        self.weights = {}
        for name, parameter in self.one.named_parameters():
            alike = parameter.detach().expand(count, *parameter.shape)
            spread = parameter.detach().std(correction=0)
            strength = 1.0 + 2.0 * torch.randint(2, (count, *(1,) * parameter.dim()))
            self.weights[name] = strength * (alike if spread == 0 else spread * torch.randn_like(alike))

    def new_cache(self, observation: torch.Tensor) -> Cache:
        return self.one.new_cache(observation)

    def extend(self, cache: Cache, *inputs: torch.Tensor) -> torch.Tensor:
        def answer(weights: dict[str, torch.Tensor], keys: list[torch.Tensor], values: list[torch.Tensor],
                   *own: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(Extending(self.one), weights, (Cache(keys, values), *own))

        def by_model(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.unflatten(0, (self.count, self.each))

        weights = {f"model.{name}": value for name, value in self.weights.items()}
        keys, values = ([by_model(part) for part in parts] for parts in (cache.keys, cache.values))  # views
        with sdpa_kernel(SDPBackend.MATH):  # the others are not made for many models
            return torch.vmap(answer)(weights, keys, values, *map(by_model, inputs)).flatten(0, 1)


class Extending(torch.nn.Module):
    """`extend` as a forward pass, which is what functional_call calls."""

    def __init__(self, model: TokenTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, cache: Cache, *inputs: torch.Tensor) -> torch.Tensor:
        return self.model.extend(cache, *inputs)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compare_decoders(seed: int, models: int = 1, each: int = 6) -> int:
    """Observations on which exact Jacobi and autoregressive decoding were compared; raises where they differ."""
    model, generator = (ManyModels(seed, models, each), torch.Generator().manual_seed(seed)) if models > 1 else (
        random_model(seed))
    batch, length = models * each, model.length
    observation = torch.randn(batch, EMBEDDING, generator=generator, dtype=torch.float64)
    vocabulary = (model.one if models > 1 else model).embed.num_embeddings
    noise = gumbel((batch, length, vocabulary), 1.0, generator, observation) if seed % 2 else None
    end = int(torch.randint(vocabulary, (), generator=generator)) if seed % 3 == 0 else None
    one_by_one = autoregressive(model, observation, noise=noise, end=end)
    guess = torch.randint(vocabulary, (batch, length), generator=generator)
    window = int(torch.randint(length + 1, (), generator=generator))
    for start in (None, guess, one_by_one.tokens):
        at_once = jacobi(model, observation, start, window, noise=noise, end=end)
        assert torch.equal(at_once.tokens, one_by_one.tokens), (seed, window)
        assert at_once.complete and at_once.forwards <= one_by_one.forwards <= length
    assert at_once.forwards == -(-one_by_one.forwards // (window or length)), "a right guess is confirmed by windows"
    return batch * 3


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_jacobi_equals_decoding_one_by_one(seed):
    compare_decoders(seed)


def test_jacobi_equals_decoding_one_by_one_on_thousands_of_random_models():
    assert sum(compare_decoders(seed, models=100, each=3) for seed in range(20)) == 20 * 100 * 9


class HeardLate(_Finished):
    """As on a GPU: the host knows of a pass when the next one is under way."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu, self._asked, self._said = True, 0, torch.zeros(2, dtype=torch.bool)
        self._known = [SimpleNamespace(record=lambda: None, synchronize=lambda: None) for _ in range(2)]


@pytest.mark.parametrize("seed", range(6))
def test_decoders_that_hear_late_of_their_end_give_the_same(seed, monkeypatch):
    model, generator = random_model(seed)
    observation = torch.randn(3, EMBEDDING, generator=generator, dtype=torch.float64)
    guess = torch.zeros(3, model.length, dtype=torch.long)
    decoders = [functools.partial(autoregressive, end=0), functools.partial(jacobi, guess=guess, window=3),
                functools.partial(jacobi, end=0), functools.partial(jacobi_bidirectional, window=3)]
    in_time = [decode(model, observation) for decode in decoders]
    monkeypatch.setattr(decoding, "_Finished", HeardLate)
    for before, decode in zip(in_time, decoders, strict=True):
        late = decode(model, observation)
        assert torch.equal(late.tokens, before.tokens)
        windows = -(-model.length // 3) if decode.func is jacobi_bidirectional else 1
        assert before.forwards <= late.forwards <= before.forwards + windows


def test_many_models_at_once_answer_as_each_alone():
    many = ManyModels(1, 3, 2)
    observation = torch.randn(6, EMBEDDING, dtype=torch.float64)
    together = autoregressive(many, observation).tokens
    for number, rows in enumerate(observation.split(2)):
        with torch.no_grad():
            for name, parameter in many.one.named_parameters():
                parameter.copy_(many.weights[name][number])
        assert torch.equal(autoregressive(many.one, rows).tokens, together[2 * number : 2 * number + 2])
    assert len(together.unique(dim=0)) > 1


def test_a_whole_pass_says_what_the_cache_says():
    model, generator = random_model(3)
    observation = torch.randn(4, EMBEDDING, generator=generator, dtype=torch.float64)
    decoded = autoregressive(model, observation)
    assert torch.equal(best_token(model(observation, decoded.tokens)), decoded.tokens)


def test_a_token_never_depends_on_later_ones():
    model, generator = random_model(5)
    observation = torch.randn(2, EMBEDDING, generator=generator, dtype=torch.float64)
    tokens = torch.randint(model.embed.num_embeddings, (2, model.length), generator=generator)
    logits = model(observation, tokens)
    for place in range(model.length):
        other = tokens.clone()
        other[:, place:] = (other[:, place:] + 1) % model.embed.num_embeddings
        torch.testing.assert_close(model(observation, other)[:, : place + 1], logits[:, : place + 1])


def test_the_first_action_alone_is_the_start_of_the_whole_chunk():
    model, generator = random_model(7)
    observation = torch.randn(3, EMBEDDING, generator=generator, dtype=torch.float64)
    part = autoregressive(model, observation, count=2)
    assert part.forwards == 2
    assert torch.equal(part.tokens, autoregressive(model, observation).tokens[:, :2])


def test_decoders_may_stop_after_the_steps_that_are_executed():
    head, embedding, _ = trained_head()
    part, whole = copy.copy(head), head.sample(embedding[:4])
    for decoder in ("jacobi", "autoregressive"):
        part.config = TokenConfig(vocabulary=32, steps=2, decoder=decoder)
        chunk = part.sample(embedding[:4])
        assert torch.equal(chunk[:, :, :2], whole[:, :, :2])
        assert torch.equal(chunk[:, :, 2:], chunk[:, :, 1:2].expand(-1, -1, 4, -1))


def test_a_cap_on_passes_ends_the_decoders_early():
    model, generator = random_model(9)
    observation = torch.randn(3, EMBEDDING, generator=generator, dtype=torch.float64)
    for decoder in (jacobi, jacobi_bidirectional):
        cut = decoder(model, observation, window=1, most_forwards=1)
        assert (cut.forwards, cut.complete) == (1, False)


@pytest.mark.parametrize("window", [0, 1, 3])
def test_the_bidirectional_mode_ends_where_a_pass_changes_nothing(window):
    model, generator = random_model(11)
    observation = torch.randn(1, EMBEDDING, generator=generator, dtype=torch.float64)
    found = jacobi_bidirectional(model, observation, window=window)
    assert found.forwards <= model.length
    if found.complete and window == 0:
        assert torch.equal(best_token(model(observation, found.tokens, causal=False)), found.tokens)


def test_statistics_of_a_right_guess_and_of_fixed_tokens():
    model, generator = random_model(13)
    observation = torch.randn(2, EMBEDDING, generator=generator, dtype=torch.float64)
    right = autoregressive(model, observation).tokens
    known = jacobi(model, observation, right)
    assert known.kept.tolist() == [1.0, 1.0] and known.fixed.tolist() == [0.0, 0.0]
    wrong = right.clone()
    wrong[:, 0] = (wrong[:, 0] + 1) % model.embed.num_embeddings
    found = jacobi(model, observation, wrong)
    assert torch.equal(found.tokens, right)
    assert bool((found.kept <= 1 - 1 / model.length).all()) and bool((found.changed <= found.forwards).all())
    changed = torch.tensor([[2, 1, 0, 3]])
    assert Decoded(right, 3, changed).kept.tolist() == [0.25]
    assert Decoded(right, 3, changed).fixed.tolist() == [0.5], "the second and the third did not change with the first"


def test_of_equal_logits_the_first_token_is_taken():
    assert best_token(torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0]])).tolist() == [1, 0]


def test_draws_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0])
    noise = gumbel((20_000, 3), 1.0, torch.Generator().manual_seed(0), logits)
    shares = torch.bincount(best_token(logits + noise), minlength=3) / 20_000
    torch.testing.assert_close(shares, logits.softmax(0), atol=0.015, rtol=0.0)


# Tokenizers

@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), bins=st.sampled_from([8, 256]), scale=st.floats(0.01, 100.0))
def test_a_bin_is_off_by_at_most_half_its_width(seed, bins, scale):
    chunks = scale * torch.randn(20, 4, 3, generator=torch.Generator().manual_seed(seed))
    tokenizer = BinTokenizer(3, bins)
    tokenizer.fit(chunks)
    tokens = tokenizer.encode(chunks)
    assert tokens.shape == (20, 12) and int(tokens.min()) >= 0 and int(tokens.max()) < bins
    half = (tokenizer.high - tokenizer.low) / bins / 2
    assert bool(((tokenizer.decode(tokens) - chunks).abs() <= half * 1.001 + 1e-6).all())


def test_values_outside_the_range_take_the_outermost_bins():
    tokenizer = BinTokenizer(1, 16)
    tokenizer.fit(torch.tensor([[[0.0]], [[1.0]]]))
    assert tokenizer.encode(torch.tensor([[[-9.0]], [[9.0]]])).tolist() == [[0], [15]]


def smooth_chunks(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    time = torch.linspace(0.0, 1.0, 10)[None, :, None]
    return sum(torch.randn(count, 1, 4, generator=generator) * time**power for power in range(3))


def test_fast_comes_back_within_its_rounding_and_takes_few_tokens():
    chunks = smooth_chunks(500)
    tokenizer = FastTokenizer(10, 4)
    tokenizer.fit(chunks)
    tokens = tokenizer.encode(chunks)
    # Each of the ten coefficients is rounded to 1 / scale of the unit range.
    bound = (tokenizer.high - tokenizer.low).max() / 2 * 10**0.5 * 0.5 / tokenizer.scale
    assert float((tokenizer.decode(tokens) - chunks).abs().max()) <= float(bound)
    assert float((tokens != tokenizer.end).sum(1).float().mean()) < 20, "40 numbers in half as many tokens"


def test_fast_is_the_same_after_saving_and_loading():
    tokenizer, loaded = FastTokenizer(10, 4), FastTokenizer(10, 4)
    tokenizer.fit(smooth_chunks(300))
    loaded.encode(smooth_chunks(2))
    loaded.load_state_dict(tokenizer.state_dict())
    chunks = smooth_chunks(50, seed=1)
    assert torch.equal(loaded.encode(chunks), tokenizer.encode(chunks))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_fast_makes_a_finite_chunk_of_any_tokens(seed):
    tokenizer = FastTokenizer(5, 3, vocabulary=300)
    tokens = torch.randint(300, (4, 15), generator=torch.Generator().manual_seed(seed))
    chunks = tokenizer.decode(tokens)
    assert chunks.shape == (4, 5, 3) and bool(chunks.isfinite().all())


# The head

@functools.cache
def trained_head(steps: int = 150, **tokens) -> tuple[TokenHead, torch.Tensor, torch.Tensor]:
    """A head that has learned chunks which are a function of the embedding."""
    torch.manual_seed(0)
    config = HeadConfig(kind="tokens", width=32, layers=2, tokens=TokenConfig(**{"vocabulary": 32, **tokens}))
    head = TokenHead(EMBEDDING, 6, 2, config)
    embedding = torch.randn(256, EMBEDDING)
    time = torch.arange(1, 7)[None, :, None] / 6
    chunks = embedding[:, None, :2] * time
    head.fit_actions(chunks)
    valid = torch.ones(256, 6, dtype=torch.bool)
    optimizer = torch.optim.AdamW(head.parameters(), 3e-3)
    for step in range(steps):
        rows = torch.randperm(256, generator=torch.Generator().manual_seed(step))[:64]
        loss = head.loss(embedding[rows], chunks[rows], valid[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head, embedding, chunks


FAST = {"tokenizer": "fast", "vocabulary": 400, "steps": 300}


@pytest.mark.parametrize("tokenizer", [{}, FAST])
def test_a_token_head_learns_chunks(tokenizer):
    head, embedding, chunks = trained_head(**tokenizer)
    error = (head.sample(embedding[:64])[:, 0] - chunks[:64]).abs().mean()
    assert float(error) < 0.5 * float(chunks.abs().mean())


def test_what_stands_behind_a_chunks_end_is_neither_decoded_nor_learned():
    head, embedding, chunks = trained_head(**FAST)
    head.sample(embedding[:1])
    used = int((head.decoded.tokens != head.tokenizer.end).sum())
    part = copy.copy(head)
    part.config = replace(head.config, decoder="autoregressive")
    assert torch.equal(part.sample(embedding[:1]), head.sample(embedding[:1]))
    assert part.decoded.forwards == used + 1 < head.model.length, "and the end's own token"
    tokens = head.tokenizer.encode(chunks[:8])
    counted = head._counted(tokens, torch.ones(8, 6, dtype=torch.bool))
    assert counted.sum(1).tolist() == ((tokens != head.tokenizer.end).sum(1) + 1).clamp_max(12).tolist()


def test_smoothing_teaches_bins_near_the_right_one():
    config = HeadConfig(kind="tokens", width=16, layers=1, tokens=TokenConfig(vocabulary=16, smoothing=1.0))
    taught = TokenHead(EMBEDDING, 2, 1, config).taught
    assert taught is not None
    torch.testing.assert_close(taught.sum(1), torch.ones(16))
    torch.testing.assert_close(taught[5, 6] / taught[5, 5], torch.tensor(math.exp(-0.5)))
    assert taught.argmax(1).tolist() == list(range(16))


def test_the_running_plan_saves_passes_and_changes_nothing():
    head, embedding, _ = trained_head()
    cold = head.sample(embedding[:1])
    passes = head.decoded.forwards
    warm = head.sample(embedding[:1], plan=cold[:, 0])
    assert torch.equal(warm, cold) and head.decoded.forwards == 1 < passes < 12


def test_several_samples_differ_and_one_is_the_likeliest():
    head, embedding, _ = trained_head()
    draws = head.sample(embedding[:3], 8, torch.Generator().manual_seed(0))
    assert draws.shape == (3, 8, 6, 2) and float(draws.std(1).mean()) > 0
    assert torch.equal(head.sample(embedding[:3]), head.sample(embedding[:3]))


def test_padded_steps_teach_nothing():
    head, embedding, chunks = trained_head(0)
    valid = torch.ones(256, 6, dtype=torch.bool)
    valid[:, 4:] = False
    other = chunks.clone()
    other[:, 4:] += 1.0
    torch.testing.assert_close(head.loss(embedding, chunks, valid), head.loss(embedding, other, valid))


@pytest.mark.slow
def test_the_consistency_term_makes_decoding_take_fewer_passes():
    def passes(consistency: float) -> float:
        head, embedding, _ = trained_head(consistency=consistency)
        counts = []
        for row in range(20):
            head.sample(embedding[row : row + 1], plan=head.sample(embedding[row + 1 : row + 2])[:, 0])
            counts.append(head.decoded.forwards)
        return float(np.mean(counts))

    assert passes(1.0) < passes(0.0)


@pytest.mark.parametrize("tokens", [{"vocabulary": 16, "consistency": 0.5}, {"tokenizer": "fast", "vocabulary": 300}])
def test_a_token_policy_goes_through_both_stages_and_comes_back_from_its_checkpoint(tokens, tmp_path):
    data = square_data()
    settings = {f"policy__head__tokens__{key}": value for key, value in tokens.items()}
    run = train(data, tmp_path / "run", small_config(policy__head__kind="tokens", **settings), quiet=True)
    policies = [Policy.load(run / "checkpoints" / "co_rft") for _ in range(2)]
    images = {camera.name: np.stack([squares(3, 20)]) for camera in data.contract.cameras}
    chunks = [policy.act(images, np.zeros((1, 8)), [RED], torch.Generator().manual_seed(1)) for policy in policies]
    np.testing.assert_array_equal(chunks[0].actions, chunks[1].actions)
    assert chunks[0].actions.shape == (1, 3, 8) and np.isfinite(chunks[0].value).all()
    plan = np.concatenate([chunks[0].actions[:, 1:], chunks[0].actions[:, -1:]], 1)
    policies[0].samples = policies[1].samples = 1
    warm, cold = policies[0].act(images, np.zeros((1, 8)), [RED], plan=plan), policies[1].act(
        images, np.zeros((1, 8)), [RED])
    np.testing.assert_array_equal(warm.actions, cold.actions)
