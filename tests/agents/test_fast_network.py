"""The written-out network against the plain one and automatic differentiation."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from hsa2c.agents.fast_network import FastActorCritic, Levels, choose_precision, join
from hsa2c.agents.network import ActorCritic, initial_vector
from hsa2c.agents.settings import Pixels

NUM_ACTIONS = 6

every = pytest.mark.parametrize("pixels", get_args(Pixels))


def observations(n: int, seed: int = 0) -> torch.Tensor:
    x = torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    x[0] //= 8  # dark
    return x


def weights(seed: int = 1) -> torch.Tensor:
    return initial_vector(NUM_ACTIONS, seed, "torch")


def fast(pixels="standardised", precision="float32", flat=None) -> FastActorCritic:
    network = FastActorCritic(NUM_ACTIONS, pixels, precision)
    network.read(weights() if flat is None else flat)
    return network


def plain(pixels: str) -> ActorCritic:
    network = ActorCritic(NUM_ACTIONS, pixels)
    vector_to_parameters(weights(), network.parameters())
    return network


def delta_cosines(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A gradient of logits and of values, some of them zero."""
    generator = torch.Generator().manual_seed(4)
    to_logits = torch.randn(n, NUM_ACTIONS, generator=generator)
    to_logits[-1] = 0
    return to_logits, torch.randn(n, generator=generator)


def gradient(network: FastActorCritic, x: torch.Tensor) -> torch.Tensor:
    features = network.features(x)
    *_, hidden = network.heads(features)
    network.backward(features, hidden, *delta_cosines(len(x)))
    return network.g.clone()


def reference(pixels: str, x: torch.Tensor) -> torch.Tensor:
    module = plain(pixels)
    torch.autograd.backward(module(x), delta_cosines(len(x)))
    return parameters_to_vector([parameter.grad for parameter in module.parameters()])


@every
def test_outputs_and_gradient_are_those_of_the_plain_network(pixels):
    x = observations(5)
    network = fast(pixels)
    for ours, theirs in zip(network(x), plain(pixels)(x), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)
    expected = reference(pixels, x)
    scale = float(expected.abs().max())
    torch.testing.assert_close(gradient(network, x), expected, rtol=1e-3, atol=1e-5 * scale)
    gradient(network, observations(3, seed=9))
    torch.testing.assert_close(gradient(network, x), expected, rtol=1e-3, atol=1e-5 * scale)  # nothing adds up


@every
def test_bfloat16_is_close(pixels):
    x = observations(8)
    network = fast(pixels, "bfloat16")
    for rough, exact in zip(network(x), fast(pixels)(x), strict=True):
        assert rough.dtype == torch.float32
        assert not torch.equal(rough, exact)  # it was in fact computed in bfloat16
        torch.testing.assert_close(rough, exact, rtol=0, atol=0.02)
    ours, expected = gradient(network, x), reference(pixels, x)
    assert torch.cosine_similarity(ours, expected, dim=0) > 0.99
    torch.testing.assert_close(ours.norm(), expected.norm(), rtol=0.02, atol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_are_as_they_were_read(precision):
    x, flat = observations(2), weights()
    network = fast(precision=precision, flat=flat)
    before = network(x)[0]
    flat.copy_(weights(2))
    assert torch.equal(network(x)[0], before)
    network.read(flat)
    assert torch.equal(network(x)[0], fast(precision=precision, flat=weights(2))(x)[0])


def test_joined_features_are_those_of_all():
    network, x = fast(), observations(6)
    parts = [network.features(x[:2]), network.features(x[2:])]
    for ours, whole in zip(join(parts), network.features(x), strict=True):
        torch.testing.assert_close(ours, whole)
    assert join(parts[:1]) is parts[0]


@every
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_renewed_features_are_those_of_the_present_weights(pixels, precision):
    x = observations(6)
    network = fast(pixels, precision)
    older = join([network.features(part) for part in x.split([4, 2])])
    network.read(weights(seed=2))
    renewed, expected = network.at(x, Levels(older.zero, older.scale)), network.features(x)
    assert not torch.equal(renewed.conv1, older.conv1)
    for mine, theirs in zip(renewed, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("level", [0, 87, 255])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_blank_screen_is_finite(level, precision):
    network = fast(precision=precision)
    blank = torch.full((2, 4, 84, 84), level, dtype=torch.uint8)
    assert torch.equal(network(blank)[0], network(torch.zeros_like(blank))[0])
    assert gradient(network, blank).isfinite().all()


@pytest.mark.parametrize(
    ("bfloat16_s", "choice"), [(0.5, "bfloat16"), (0.89, "bfloat16"), (0.91, "float32"), (3.0, "float32")]
)
def test_choice_of_precision(bfloat16_s, choice):
    # Whatever the first of each takes (kernels being prepared) must not count; nor does one disturbed measurement.
    times = {torch.float32: [0.1, 9.0, 1.0, *[1.5] * 9], torch.bfloat16: [50.0, 9.0, bfloat16_s, *[2 * bfloat16_s] * 9]}
    chosen = choose_precision(NUM_ACTIONS, "raw", 1, time_s=lambda network, x: times[network.dtype].pop(0))
    assert chosen == choice


def test_measured_choice_is_a_precision_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    assert choose_precision(NUM_ACTIONS, "standardised", 2) in {"float32", "bfloat16"}
    assert torch.equal(torch.get_rng_state(), before)
