"""Running means and deviations in v: what they come to, on one node and on several."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hsa2c.agents.gym.statistics import Statistics
from hsa2c.dpsgd.problem import Problem
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho
from hsa2c.node.layout import DenseLayout
from hsa2c.node.optimiser import Rule

SPACES = {
    "a": Box(-np.inf, np.inf, (2, 3)),
    "picture": Box(0, 255, (32, 32, 3), np.uint8),
    "choice": Discrete(3),
    "ram": Box(0, 255, (4,), np.uint8),
}
MEAN, DEVIATION = 3.0, 2.0


def drawn(n=64):
    a = MEAN + DEVIATION * torch.randn(n, 2, 3)
    ram = torch.randint(0, 256, (n, 4), dtype=torch.uint8)
    return {"a": a, "ram": ram, "picture": torch.zeros(n, 32, 32, 3, dtype=torch.uint8), "choice": torch.zeros(n)}


def learnt(statistics, tail, rollouts):
    for _ in range(rollouts):
        tail = tail - statistics.gradient(tail, drawn(), 5 * torch.randn(64) if statistics.rewards else None)
    return tail


@pytest.mark.parametrize("rewards", [True, False])
def test_means_and_deviations_are_those_of_the_data(rewards):
    torch.manual_seed(1)
    statistics = Statistics(SPACES, observations=True, rewards=rewards)
    assert statistics.paths == ["a", "ram"]
    tail = learnt(statistics, torch.zeros(statistics.size), 30)  # long before a moving average would have come there
    x = drawn(4000)
    for path in ("a", "ram"):
        normal = statistics.normalise(tail, path, x[path])
        assert normal.shape == x[path].shape
        assert normal.mean(0).abs().max() < 0.12
        assert (normal.std(0) - 1).abs().max() < 0.12
    assert statistics.normalise(tail, "picture", x["picture"]) is x["picture"]
    assert statistics.reward_scale(tail) == pytest.approx(5 if rewards else 1, rel=0.1)


def test_nothing_is_shifted_before_anything_is_known():
    statistics = Statistics(SPACES, observations=True, rewards=True)
    tail, x = torch.zeros(statistics.size), drawn()
    assert torch.equal(statistics.normalise(tail, "a", x["a"]), x["a"])
    assert statistics.normalise(tail, "ram", x["ram"]).dtype == torch.float32  # as it will be later
    assert statistics.reward_scale(tail) == 1


def test_nothing_to_learn_takes_no_room():
    assert Statistics(SPACES, observations=False, rewards=False).size == 0
    assert Statistics({"": Discrete(3)}, observations=True, rewards=False).size == 0


def test_numbers_far_from_their_mean_are_cut():
    statistics = Statistics({"": Box(-np.inf, np.inf, (1,))}, observations=True, rewards=False)
    tail = torch.tensor([1.0, 0.0, 1.0])
    assert statistics.normalise(tail, "", torch.tensor([[1e9], [-1e9]])).tolist() == [[10], [-10]]


@pytest.mark.parametrize("constant", [0.0, 1.0, 1000.0, -12345.6])
def test_a_constant_stays_small(constant):
    """The difference of two squares in float32 must not be taken for a deviation."""
    statistics = Statistics({"": Box(-np.inf, np.inf, (1,))}, observations=True, rewards=False)
    tail, x = torch.zeros(3), {"": torch.full((8, 1), constant)}
    for _ in range(50):
        tail = tail - statistics.gradient(tail, x, None)
        assert statistics.normalise(tail, "", x[""]).abs().max() < 0.01


def test_mean_of_two_nodes_deltas_is_that_of_all_their_data():
    """Node 1 sees numbers around -1, node 2 around 5: v has both, though each node began with what v was."""
    statistics = Statistics({"": Box(-np.inf, np.inf, (1,))}, observations=True, rewards=False)
    v, step = np.zeros(3, np.float32), GlobalStep(constant_factor_rho(2, 0.0), 0.0, 3)
    for _ in range(60):
        w_sum = np.zeros(3, np.float32)
        for mean in (-1.0, 5.0):
            u = torch.from_numpy(v.copy())
            for _ in range(4):
                u -= statistics.gradient(u, {"": mean + torch.tensor([[-1.0], [1.0]])}, None)
            w_sum += u.numpy() - v
        step(v, w_sum, 2)
    tail = torch.from_numpy(v)
    mean, deviation = 2.0, np.sqrt(3**2 + 1)
    assert float(statistics.normalise(tail, "", torch.tensor([[mean]]))) == pytest.approx(0, abs=1e-3)
    assert float(statistics.normalise(tail, "", torch.tensor([[mean + deviation]]))) == pytest.approx(1, rel=1e-3)


def test_the_optimiser_leaves_the_tail_alone():
    rule = Rule(name="adam", learning_rate=0.1, beta1=0.9, beta2=0.999, decay=0.99, epsilon=1e-8)
    layout = DenseLayout(5, rule, 2)
    assert layout.state_size == rule.state_size(3)
    u, state, g = torch.ones(5), torch.zeros(layout.state_size), torch.tensor([9.0, -9.0, 0.0, 0.25, -0.5])
    access = layout.attach(u, state, Problem())
    access.scale_rate(0.5)
    access.step(g)
    assert u.tolist() == pytest.approx([0.95, 1.05, 1.0, 0.75, 1.5])  # Adam's first step is the rate
    assert access.read().tolist() == u.tolist()
    assert access.finite(g)
    assert not access.finite(torch.tensor([0.0, 0, 0, 0, np.nan]))
