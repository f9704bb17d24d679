"""Networks for any space: shapes, memory, and networks of one's own."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from torch import nn

from hsa2c.agents.gym.networks import Agent, check, initialise, to_tensors
from hsa2c.agents.gym.spaces import MASK, empty, leaves, take
from hsa2c.errors import ConfigError

T, N = 7, 3


def observations(space, n):
    arrays = empty(leaves(space), (n,))
    for i in range(n):
        for path, part in zip(arrays, take(space.sample(), space), strict=True):
            arrays[path][i] = part
    return to_tensors(arrays)


def step(agent, space, n=N):
    return agent(observations(space, n), agent.begin(n), torch.zeros(n, dtype=torch.bool))


@pytest.mark.parametrize("recurrent", ["none", "lstm", "gru"])
@pytest.mark.parametrize("convolution", ["mnih", "impala"])
@pytest.mark.parametrize(
    "space",
    [
        Box(-1, 1, (3,)),
        Box(-1, 1, ()),
        Discrete(3, start=-1),
        MultiDiscrete([2, 3], start=[5, 0]),
        MultiBinary([2, 2]),
        Box(0, 255, (3, 24, 32), np.uint8),
        Box(0, 255, (24, 32, 3), np.uint8),
        Box(0, 255, (24, 32), np.uint8),
        Dict({"values": Box(0, 255, (24, 32, 3), np.uint8), "keys": Tuple((Discrete(2), Box(0, 9, (2,), np.int32)))}),
        Dict({"x": Box(-1, 1, (2,)), MASK: MultiBinary(4)}),
    ],
    ids=str,
)
def test_any_observations(space, convolution, recurrent):
    agent = Agent(leaves(space), Discrete(4), hidden=8, convolution=convolution, recurrent=recurrent)
    initialise(agent, 1)
    parameters, values, state = step(agent, space)
    assert (parameters.shape, values.shape) == ((N, 4), (N,))
    assert [part.shape for part in state] == [(N, 8)] * {"none": 0, "gru": 1, "lstm": 2}[recurrent]
    (parameters.sum() + values.sum()).backward()
    assert all(parameter.grad is not None for parameter in agent.parameters())


def test_channels_first_and_last_are_the_same_picture():
    torch.manual_seed(1)
    first, last = Box(0, 255, (3, 24, 32), np.uint8), Box(0, 255, (24, 32, 3), np.uint8)
    agents = [Agent(leaves(space), Discrete(4), hidden=8) for space in (first, last)]
    agents[1].load_state_dict(agents[0].state_dict())
    x = torch.randint(0, 256, (N, 3, 24, 32), dtype=torch.uint8)
    begun = torch.zeros(N, dtype=torch.bool)
    torch.testing.assert_close(
        agents[0]({"": x}, (), begun)[0], agents[1]({"": x.permute(0, 2, 3, 1).contiguous()}, (), begun)[0]
    )


def test_choices_are_ones_among_zeros():
    space = MultiDiscrete([2, 3], start=[5, 0])
    encoder = Agent(leaves(space), Discrete(2)).encoder
    assert encoder({"": torch.tensor([[6, 0], [5, 2]])}).tolist() == [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    encoder = Agent(leaves(Discrete(3, start=-1)), Discrete(2)).encoder
    assert encoder({"": torch.tensor([-1, 1])}).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("recurrent", ["none", "lstm", "gru"])
def test_a_sequence_is_its_steps_and_forgets_at_starts(recurrent):
    torch.manual_seed(1)
    agent = Agent(leaves(Box(-1, 1, (3,))), Discrete(4), hidden=8, recurrent=recurrent)
    x, starts = torch.randn(T, N, 3), torch.zeros(T, N, dtype=torch.bool)
    starts[3, 1] = True
    begin = tuple(torch.randn(N, 8) for _ in agent.begin(N))
    parameters, values = agent.sequence({"": x}, begin, starts)
    state = begin
    for t in range(T):
        one, value, state = agent({"": x[t]}, state, starts[t])
        torch.testing.assert_close((one, value), (parameters[t], values[t]))
    # Environment 1 is as one that begins at step 3; environment 0 depends on what it saw before.
    anew, _ = agent.sequence({"": x[3:]}, agent.begin(N), torch.zeros(T - 3, N, dtype=torch.bool))
    torch.testing.assert_close(anew[:, 1], parameters[3:, 1])
    assert recurrent == "none" or not torch.allclose(anew[:, 0], parameters[3:, 0])


def test_weights_are_those_of_the_seed_and_the_first_policy_is_nearly_uniform():
    agents = [Agent(leaves(Box(-1, 1, (3,))), Discrete(4), recurrent="lstm") for _ in range(3)]
    for agent, seed in zip(agents, (1, 1, 2), strict=True):
        initialise(agent, seed)
    flat = [torch.cat([parameter.reshape(-1) for parameter in agent.parameters()]) for agent in agents]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])
    policy, _, _ = step(agents[0], Box(-1, 1, (3,)))
    assert (policy.softmax(-1) - 0.25).abs().max() < 0.02


class Own(nn.Module):
    def __init__(self, gives, dtype=torch.float32):
        super().__init__()
        self.layer, self.gives = nn.Linear(3, 5, dtype=dtype), gives

    def forward(self, x):
        return self.gives(self.layer(x.to(self.layer.weight.dtype)))


SPACE = Box(-1, 1, (3,))


@pytest.mark.parametrize("values", [lambda x: x[:, 4], lambda x: x[:, 4:]], ids=["n", "n x 1"])
def test_a_network_of_ones_own(values):
    agent = Agent(leaves(SPACE), Discrete(4), own=Own(lambda x: (x[:, :4], values(x))))
    check(agent, leaves(SPACE), 4)
    parameters, given, state = step(agent, SPACE)
    assert (parameters.shape, given.shape, state) == ((N, 4), (N,), ())
    before = agent.own.layer.weight.clone()
    initialise(agent, 1)
    assert torch.equal(agent.own.layer.weight, before)


def test_a_network_of_ones_own_sees_parts_by_path():
    space = Dict({"a": Box(-1, 1, (3,)), "b": Discrete(2), MASK: MultiBinary(4)})

    class Parts(Own):
        def forward(self, x):
            assert set(x) == {"a", "b"}
            return super().forward(x["a"])

    agent = Agent(leaves(space), Discrete(4), own=Parts(lambda x: (x[:, :4], x[:, 4])))
    check(agent, leaves(space), 4)
    assert step(agent, space)[0].shape == (N, 4)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda x: (x, x[:, 4]), "the policy is [2, 5], must be [2, 4]"),
        (lambda x: (x[:, :4], x), "the value is [2, 5], must be [2] or [2, 1]"),
        (lambda x: (x[:, :4], None), "the value is a NoneType, must be [2] or [2, 1]"),
        (lambda x: x[:, :4].sum(), "fails on 2 observations: TypeError"),
        (lambda x: x @ x, "fails on 2 observations: RuntimeError"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(gives, said):
    with pytest.raises(ConfigError) as caught:
        check(Agent(leaves(SPACE), Discrete(4), own=Own(gives)), leaves(SPACE), 4)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_of_ones_own_has_no_other_core_and_other_numbers():
    own = Own(lambda x: (x[:, :4], x[:, 4]), torch.float64)
    with pytest.raises(ConfigError, match="float32"):
        check(Agent(leaves(SPACE), Discrete(4), own=own), leaves(SPACE), 4)
    with pytest.raises(ConfigError, match=r"agent\.recurrent"):
        Agent(leaves(SPACE), Discrete(4), own=own, recurrent="lstm")


class Normed(nn.Module):
    """Has a constant buffer, and a normalisation that may keep a state."""

    def __init__(self, normalisation):
        super().__init__()
        self.register_buffer("share", torch.tensor(0.5))
        self.normalisation, self.policy, self.value = normalisation, nn.Linear(3, 4), nn.Linear(3, 1)

    def forward(self, x):
        x = self.share * self.normalisation(x)
        return self.policy(x), self.value(x)


def test_buffers_must_be_constant():
    space = Box(-1, 1, (3,))

    def checked(normalisation):
        check(Agent(leaves(space), Discrete(4), own=Normed(normalisation)), leaves(space), 4)

    checked(nn.LayerNorm(3))
    checked(nn.BatchNorm1d(3, track_running_stats=False))
    checked(nn.BatchNorm1d(3).eval())
    with pytest.raises(ConfigError, match=r"^agent.network: its buffer normalisation.running_mean changes with use"):
        checked(nn.BatchNorm1d(3))
