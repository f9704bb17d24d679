from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from hsa2c.agents.network import (
    ActorCritic,
    autocast,
    bind,
    grey_levels,
    initial_vector,
    initialise,
    num_parameters,
)
from hsa2c.agents.settings import Pixels

NUM_ACTIONS = 6


def observations(n: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 4, 84, 84), dtype=torch.uint8, generator=generator)


def bound(flat: torch.Tensor, pixels="standardised") -> ActorCritic:
    network = ActorCritic(NUM_ACTIONS, pixels)
    bind(network, flat)
    return network


class Textbook(nn.Module):
    """The same network from ordinary layers with ordinary parameters, pixels scaled before they enter."""

    def __init__(self, flat: torch.Tensor, pixels: str):
        super().__init__()
        self.pixels = pixels
        self.body = nn.Sequential(
            nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(2592, 256), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.Linear(256, NUM_ACTIONS), nn.Linear(256, 1)
        self.all = [*self.body.parameters(), *self.heads[0].parameters(), *self.heads[1].parameters()]
        nn.utils.vector_to_parameters(flat.clone(), self.all)

    def forward(self, x):
        x = self.body(torch.stack([scaled(one, self.pixels) for one in x]))
        return self.heads[0](x), self.heads[1](x)[:, 0]


def scaled(observation: torch.Tensor, pixels: str) -> torch.Tensor:
    if pixels == "raw":
        return observation.float() / 255
    rows = observation.double()[:, [*range(0, 84, 4)]]
    zero = rows.mean().round() if pixels == "standardised" else rows[:, :, ::4].quantile(0.5, interpolation="higher")
    return ((observation - zero) / max((rows - zero).square().mean().sqrt(), 1.0)).float()


def some_loss(logits: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (logits.log_softmax(1)[:, 2] * 3).sum() + (values - 1).square().sum()


def test_number_of_parameters_by_hand():
    # 16 * 4*8*8 + 16, 32 * 16*4*4 + 32, 256 * 32*9*9 + 256, 6 * 256 + 6, 256 + 1
    assert num_parameters(ActorCritic(6)) == 4112 + 8224 + 663_808 + 1542 + 257 == 677_943


def test_the_weights_lie_one_after_the_other_in_the_flat_vector():
    flat = initial_vector(NUM_ACTIONS, seed=3)
    end = 0
    for parameter in bound(flat).parameters():
        begin, end = end, end + parameter.numel()
        assert torch.equal(parameter, flat[begin:end].view(parameter.shape))
    assert end == len(flat)


every = pytest.mark.parametrize("pixels", get_args(Pixels))


@every
def test_outputs_equal_the_textbook_network(pixels):
    flat = initial_vector(NUM_ACTIONS, seed=1, initialisation="torch")
    x = observations(3)
    x[1] //= 8  # dark
    x[2] = x[2] // 64 + 190  # bright, and of little contrast
    logits, values = bound(flat, pixels)(x)
    expected_logits, expected_values = Textbook(flat, pixels)(x)
    assert logits.shape == (3, NUM_ACTIONS)
    assert values.shape == (3,)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, expected_values, rtol=1e-4, atol=1e-5)


def test_the_background_becomes_nothing_whatever_its_level():
    seen = []
    for level in (0, 87, 200):
        x = torch.full((1, 4, 84, 84), level, dtype=torch.uint8)
        x[:, :, 40:60, 10:40] += 50  # whatever stands out would shift a mean
        zero, deviation = grey_levels(x, "background")
        assert zero.item() == level
        seen.append(((x - zero) / deviation).unique().tolist())
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == 0


@pytest.mark.parametrize("pixels", ["background", "standardised"])
def test_scaled_pixels_do_not_see_brightness_nor_contrast(pixels):
    network = bound(initial_vector(NUM_ACTIONS, seed=1, initialisation="torch"), pixels)
    x = observations(2) // 4
    torch.testing.assert_close(network(x + 100)[0], network(x)[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(network(2 * x + 10)[0], network(x)[0], rtol=0, atol=0.02)  # means are whole grey levels


@pytest.mark.parametrize("level", [0, 87, 255])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_blank_screen_is_finite_and_like_any_other(level, precision):
    network = bound(initial_vector(NUM_ACTIONS, seed=1, initialisation="torch"))
    blank = torch.full((2, 4, 84, 84), level, dtype=torch.uint8)
    with autocast(precision):
        logits, values = network(blank)
        assert torch.equal(logits, network(torch.zeros_like(blank))[0])
    some_loss(logits, values).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_writing_the_flat_vector_changes_the_outputs():
    flat = initial_vector(NUM_ACTIONS, seed=1)
    other = initial_vector(NUM_ACTIONS, seed=2)
    network = bound(flat)
    x = observations(2)
    before = network(x)[0].detach()
    flat.copy_(other)
    assert not torch.allclose(network(x)[0], before)
    assert torch.equal(network(x)[0], bound(other)(x)[0])
    assert next(network.parameters()).data_ptr() == flat.data_ptr()


@pytest.mark.parametrize("bad", [torch.zeros(5), torch.zeros(677_943, dtype=torch.float64)])
def test_a_vector_that_does_not_fit_is_refused(bad):
    with pytest.raises(AssertionError, match="677943"):
        bind(ActorCritic(NUM_ACTIONS), bad)


@pytest.mark.parametrize("initialisation", ["orthogonal", "torch"])
def test_seed_decides_the_weights(initialisation):
    first = initial_vector(NUM_ACTIONS, 7, initialisation)
    assert first.dtype == torch.float32
    assert torch.equal(first, initial_vector(NUM_ACTIONS, 7, initialisation))
    assert not torch.allclose(first, initial_vector(NUM_ACTIONS, 8, initialisation))


def test_orthogonal_rows_have_the_gain():
    network = ActorCritic(NUM_ACTIONS)
    initialise(network, seed=0)
    gains = {"conv1": 2**0.5, "conv2": 2**0.5, "hidden": 2**0.5, "policy": 0.01, "value": 1.0}
    for name, gain in gains.items():
        layer = getattr(network, name)
        rows = layer.weight.detach().flatten(1) / gain
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-4)
        assert not layer.bias.any()


def test_torch_initialisation_fills_its_interval():
    network = ActorCritic(NUM_ACTIONS)
    initialise(network, seed=0, initialisation="torch")
    for layer, inputs in ((network.conv1, 256), (network.conv2, 256), (network.hidden, 2592), (network.policy, 256)):
        bound_ = inputs**-0.5
        assert 0.98 * bound_ < layer.weight.abs().max() <= bound_
        assert 0.5 * bound_ < layer.bias.abs().max() <= bound_


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    initial_vector(NUM_ACTIONS, seed=0)
    initial_vector(NUM_ACTIONS, seed=0, initialisation="torch")
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_bfloat16_is_close_and_hands_out_float32(pixels):
    network, x = bound(initial_vector(NUM_ACTIONS, seed=1, initialisation="torch"), pixels), observations(8)
    exact, _ = network(x)
    with autocast("bfloat16"):
        rounded, values = network(x)
    assert rounded.dtype == values.dtype == torch.float32
    assert not torch.equal(exact, rounded)  # it was in fact computed in bfloat16
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.02)


def test_float32_context_changes_nothing():
    network, x = bound(initial_vector(NUM_ACTIONS, seed=1)), observations(2)
    with autocast("float32"):
        inside = network(x)[0]
    assert torch.equal(inside, network(x)[0])


def test_weights_rewritten_inside_one_context_are_seen():
    flat, other = (initial_vector(NUM_ACTIONS, seed, "torch") for seed in (1, 2))
    network, x = bound(flat), observations(2)
    with autocast("bfloat16"):
        expected = bound(other)(x)[0]
    with autocast("bfloat16"):
        assert not torch.equal(network(x)[0], expected)
        flat.copy_(other)
        assert torch.equal(network(x)[0], expected)
