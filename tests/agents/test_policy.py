from __future__ import annotations

import numpy as np
import pytest
import torch

from hsa2c.agents.network import ActorCritic, bind, initial_vector
from hsa2c.agents.policy import Policy, gumbel_noise

NUM_ACTIONS = 6
PIXELS = {"pixels": "standardised"}


@pytest.fixture(scope="module")
def v() -> torch.Tensor:
    return initial_vector(NUM_ACTIONS, seed=0, initialisation="torch")


@pytest.fixture(scope="module")
def observations() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 4, 84, 84), dtype=np.uint8)


def test_frequencies_are_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    n = 40_000
    actions = (logits + gumbel_noise((n, 4), torch.Generator().manual_seed(1))).argmax(1)
    expected = logits.softmax(0) * n
    chi_squared = float(((torch.bincount(actions, minlength=4) - expected) ** 2 / expected).sum())
    assert chi_squared < 16.3  # 3 degrees of freedom: 1 in 1,000; the seed is fixed


def test_rows_are_sampled_by_their_own_logits():
    logits = torch.full((4, 4), -100.0).fill_diagonal_(100.0)
    assert (logits + gumbel_noise((4, 4), torch.Generator())).argmax(1).tolist() == [0, 1, 2, 3]


def test_greedy_takes_the_likeliest_action(v, observations):
    network = ActorCritic(NUM_ACTIONS)
    bind(network, v)
    expected = network(torch.from_numpy(observations))[0].argmax(1).numpy()
    actions = Policy(v, NUM_ACTIONS, **PIXELS, greedy=True, seed=0)(observations)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, expected)


def test_one_or_many_observations_as_for_any_agent(v, observations):
    acting = Policy(v, NUM_ACTIONS, **PIXELS, greedy=True, seed=0)
    expected = acting(observations)
    acting.reset()
    assert [acting(one) for one in observations] == expected.tolist()
    assert acting.batch(list(observations), None, np.ones(5, bool)).tolist() == expected.tolist()


def test_sampling_repeats_with_its_seed_and_leaves_the_global_generator_alone(v, observations):
    before = torch.get_rng_state()

    def play(seed):
        policy = Policy(v, NUM_ACTIONS, **PIXELS, greedy=False, seed=seed)
        return np.stack([policy(observations) for _ in range(4)])

    np.testing.assert_array_equal(play(1), play(1))
    assert (play(1) != play(2)).any()
    assert (play(1)[0] != play(1)[1:]).any()  # it goes on drawing
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
def test_weights_are_copied(v, observations, kind):
    source = v.clone()
    policy = Policy(source if kind is torch.Tensor else source.numpy(), NUM_ACTIONS, **PIXELS, greedy=True, seed=0)
    before = policy(observations)
    assert before.any()
    source.zero_()  # all logits equal: action 0 everywhere
    np.testing.assert_array_equal(policy(observations), before)


def test_weights_may_be_read_only(v, observations):
    source = v.numpy().copy()
    source.setflags(write=False)
    assert Policy(source, NUM_ACTIONS, **PIXELS, greedy=True, seed=0)(observations).shape == (5,)


def test_bfloat16_samples_too(v, observations):
    actions = Policy(v, NUM_ACTIONS, **PIXELS, greedy=False, seed=0, precision="bfloat16")(observations)
    assert actions.shape == (5,)
    assert set(actions) <= set(range(NUM_ACTIONS))
