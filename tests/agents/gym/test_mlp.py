"""Towers in numpy against the agent's, and their gradients by hand against automatic ones."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from torch import nn

from hsa2c.agents.gym import closed_form
from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.losses import LOSSES, Batch, Output
from hsa2c.agents.gym.mlp import MLP, has_towers
from hsa2c.agents.gym.networks import Agent, initialise, to_tensors
from hsa2c.agents.gym.rollout import Player
from hsa2c.agents.gym.settings import ActorCriticConfig
from hsa2c.agents.gym.spaces import action_parameters, empty, leaves, take
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import bind, num_parameters
from hsa2c.envs.episodes import Envs
from tests.agents.gym.scripted import Scripted

N = 12
MIXED = Dict(
    {
        "a": Tuple((Box(-5, 5, (2, 2)), Discrete(3, start=1))),
        "b": MultiDiscrete([2, 3], start=[5, 0]),
        "c": MultiBinary(2),
        "d": Box(0, 255, (3,), np.uint8),
    }
)
BOUNDED = Box(np.float32([-1, -np.inf]), np.float32([3, np.inf]))
ACTIONS = [
    (Discrete(4, start=2), "clip"),
    (MultiDiscrete([2, 3]), "clip"),
    (MultiBinary(3), "clip"),
    (Box(-1, 1, (3,)), "clip"),
    (BOUNDED, "squash"),
]
EACH_SPACE = pytest.mark.parametrize(("space", "bounds"), ACTIONS, ids=str)


def pair(observations, actions, seen=1.0, normalise=True, layers=2):
    """An agent with weights of some size, the same in numpy, its statistics, and the gradient's place."""
    torch.manual_seed(3)
    spaces = leaves(observations)
    agent = Agent(spaces, actions, hidden=8, layers=layers)
    initialise(agent, 1)
    statistics = Statistics(spaces, observations=normalise, rewards=True)
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in agent.parameters()])
    bind(agent, flat + 0.1 * torch.randn(len(flat)))
    g = torch.zeros(num_parameters(agent))
    half = (statistics.size - 1) // 2
    mean = torch.linspace(-0.5, 1.5, half)
    tail = seen * torch.cat([torch.ones(1), mean, mean.square() + torch.linspace(0.5, 2, half)])
    mlp = MLP(agent, statistics, g)
    mlp.read(tail)
    return agent, mlp, statistics, tail, g


def drawn(space, n=N):
    space.seed(1)
    arrays = empty(leaves(space), (n,))
    for i in range(n):
        for path, part in zip(arrays, take(space.sample(), space), strict=True):
            arrays[path][i] = part
    return arrays


def by_torch(agent, statistics, tail, arrays):
    seen = {path: statistics.normalise(tail, path, x) for path, x in to_tensors(arrays).items()}
    parameters, values, _ = agent(seen, (), torch.zeros(N, dtype=torch.bool))
    return parameters, values


def masks(space, n=N):
    if isinstance(space, Box):
        return None
    there = torch.rand(n, action_parameters(space)) < 0.6
    begin = 0
    for size in Actions(space).parts:  # one of each choice stays
        there[:, begin] = True
        begin += size
    return there


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("seen", [0.0, 0.7])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    "space", [Box(-20, 20, (3,)), Box(-1, 1, ()), Box(0, 9, (4,), np.uint8), Discrete(3), MIXED], ids=str
)
def test_outputs_are_the_agents(space, normalise, seen, layers):
    agent, mlp, statistics, tail, _ = pair(space, Discrete(4), seen, normalise, layers)
    arrays = drawn(space)
    parameters, values = by_torch(agent, statistics, tail, arrays)
    x = mlp.see(arrays)
    assert (x.dtype, x.shape) == (np.float32, (N, mlp.size))
    np.testing.assert_allclose(mlp.policy(x), parameters.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mlp.value(x)[:, 0], values.detach(), rtol=1e-5, atol=1e-5)


def test_weights_are_views():
    agent, mlp, *_ = pair(Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    x = mlp.see(drawn(Box(-1, 1, (3,))))
    flat = torch.zeros(num_parameters(agent))
    bind(agent, flat)
    mlp.bind()
    assert not mlp.policy(x).any()
    flat.fill_(1.0)  # as the next u_hat comes
    assert mlp.policy(x).all()
    assert mlp.log_std.tolist() == [1, 1]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", closed_form.LOSSES)
@EACH_SPACE
def test_gradients_are_automatic_ones(space, bounds, name, masked):
    """The whole way: observations, towers, distribution, loss; some samples are not valid, some ratios clipped."""
    config = ActorCriticConfig(loss=name, entropy_weight=0.03, value_weight=0.7, policy_clip=0.1)
    agent, mlp, statistics, tail, g = pair(MIXED, space)
    actions, arrays, mask = Actions(space, bounds), drawn(MIXED), masks(space) if masked else None
    parameters, values = by_torch(agent, statistics, tail, arrays)
    taken = actions.sample(parameters.detach(), agent.log_std, mask, False)
    log_p, entropy = actions.evaluate(parameters, agent.log_std, mask, taken)
    old = {"log_p": log_p.detach() + 0.2 * torch.randn(N), "advantages": torch.randn(N), "returns": torch.randn(N)}
    old["valid"] = torch.arange(N) % 5 != 0
    rest = dict.fromkeys(("values", "rewards", "terminated", "truncated"), torch.zeros(N))
    output = Output(log_p=log_p, entropy=entropy, values=values, bootstrap=values[:0])
    policy, value = LOSSES[name](Batch(actions=taken, **old, **rest), output, config)
    mean_entropy = entropy[old["valid"]].mean()
    (policy + 0.7 * value - 0.03 * mean_entropy).backward()

    x = mlp.see(arrays)
    numbers, mlp_values = mlp.policy(x), mlp.value(x)[:, 0]
    found = closed_form.density(actions, numbers, mlp.log_std, None if mask is None else mask.numpy(), taken.numpy())
    loss = closed_form.loss(found, mlp_values, closed_form.Samples(**{k: v.numpy() for k, v in old.items()}), config)
    mlp.policy.backward(loss.to_parameters)
    mlp.value.backward(loss.to_values[:, None])
    if mlp.g_log_std is not None:
        mlp.g_log_std[:] = loss.to_log_std
    np.testing.assert_allclose(found.log_p, log_p.detach(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.entropy, entropy.detach(), rtol=1e-5, atol=1e-5)
    kl = (old["log_p"] - log_p)[old["valid"]].mean()
    truth = [float(one.detach()) for one in (policy, value, mean_entropy, kl)]
    assert [loss.policy, loss.value, loss.entropy, loss.kl] == pytest.approx(truth, rel=1e-4, abs=1e-6)
    assert loss.to_parameters.dtype == np.float32
    truth = torch.cat([parameter.grad.reshape(-1) for parameter in agent.parameters()])
    assert truth.abs().max() > 0.01
    torch.testing.assert_close(g, truth, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", closed_form.LOSSES)
def test_nothing_valid_gives_no_gradient(name):
    actions, zeros = Actions(Discrete(2)), np.zeros(3, np.float32)
    found = closed_form.density(actions, np.zeros((3, 2), np.float32), None, None, np.zeros(3, np.int64))
    samples = closed_form.Samples(zeros, zeros + 1, zeros, np.zeros(3, bool))
    loss = closed_form.loss(found, zeros, samples, ActorCriticConfig(loss=name))
    assert not loss.to_parameters.any()
    assert not loss.to_values.any()


@pytest.mark.parametrize("mask", [None, "info", "entry"])
def test_a_rollout_in_numpy_is_that_of_torch(mask):
    """With the same noise the same actions, and so the same observations, probabilities and values."""

    def played(in_numpy):
        envs = Envs(lambda: Scripted(3, mask=mask), 2, seed=4)
        agent, mlp, statistics, tail, _ = pair(envs.observation_space, envs.action_space)
        how = {"t_max": 9, "discount": 0.9, "mlp": mlp if in_numpy else None}
        player = Player(envs, agent, Actions(envs.action_space), statistics, **how)
        torch.manual_seed(5)
        player.play(tail, lambda: False)
        return player.play(tail, lambda: False)

    mine, truth = played(True), played(False)
    for name in ("actions", "log_p", "values"):
        torch.testing.assert_close(getattr(mine, name), getattr(truth, name), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mine.rewards, truth.rewards)
    np.testing.assert_array_equal(mine.starts, truth.starts)


@pytest.mark.parametrize(
    ("how", "fits"),
    [
        ({}, True),
        ({"recurrent": "gru"}, False),
        ({"own": nn.Linear(3, 2)}, False),
        ({"spaces": leaves(Box(0, 255, (24, 24), np.uint8))}, False),
    ],
    ids=str,
)
def test_which_agents_have_towers(how, fits):
    agent = Agent(**{"spaces": leaves(Box(-1, 1, (3,))), "action_space": Discrete(2), "hidden": 4, **how})
    assert has_towers(agent) is fits
