"""Each distribution over actions against torch's own, and masks."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from torch import distributions

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.spaces import action_parameters

N = 4000


def numbers(space, n=5):
    return torch.randn(n, action_parameters(space))


def same(found, log_p, entropy):
    torch.testing.assert_close(found[0], log_p)
    torch.testing.assert_close(found[1], entropy)


def test_discrete():
    space = Discrete(4, start=3)
    logits, actions = numbers(space), torch.tensor([0, 1, 2, 3, 1])
    truth = distributions.Categorical(logits=logits)
    same(Actions(space).evaluate(logits, None, None, actions), truth.log_prob(actions), truth.entropy())
    assert Actions(space).to_env(actions).tolist() == [3, 4, 5, 6, 4]


def test_multi_discrete_is_independent_choices():
    space = MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [0, 5]])
    logits = numbers(space)
    actions = Actions(space).sample(logits, None, None, False)
    parts = [distributions.Categorical(logits=part) for part in logits.split([2, 3, 4, 2], dim=-1)]
    same(
        Actions(space).evaluate(logits, None, None, actions),
        sum(part.log_prob(column) for part, column in zip(parts, actions.unbind(-1), strict=True)),
        sum(part.entropy() for part in parts),
    )
    for action, given in zip(actions, Actions(space).to_env(actions), strict=True):
        assert given in space
        assert (given - space.start).ravel().tolist() == action.tolist()


def test_multi_binary():
    space = MultiBinary([2, 3])
    logits = numbers(space)
    actions = Actions(space).sample(logits, None, None, False)
    truth = distributions.Independent(distributions.Bernoulli(logits=logits), 1)
    same(Actions(space).evaluate(logits, None, None, actions), truth.log_prob(actions), truth.entropy())
    assert all(given in space for given in Actions(space).to_env(actions))


def test_gaussian():
    space = Box(-np.inf, np.inf, (2, 2))
    means, log_std, actions = numbers(space), torch.tensor([0.1, -1.0, 0.5, 0.0]), torch.randn(5, 4)
    truth = distributions.Independent(distributions.Normal(means, log_std.exp()), 1)
    same(Actions(space).evaluate(means, log_std, None, actions), truth.log_prob(actions), truth.entropy())
    assert Actions(space).to_env(actions).shape == (5, 2, 2)


def test_squashed_gaussian_has_the_density_of_its_tanh():
    space = Box(np.float32([-1, -np.inf]), np.float32([3, np.inf]))
    means, log_std, actions = numbers(space), torch.tensor([0.1, -1.0]), torch.randn(5, 2)
    normal = distributions.Normal(means, log_std.exp())
    squashed = distributions.TransformedDistribution(normal, distributions.TanhTransform())
    bounded, free = squashed.log_prob(actions.tanh())[:, 0], normal.log_prob(actions)[:, 1]
    torch.testing.assert_close(
        Actions(space, "squash").evaluate(means, log_std, None, actions)[0], bounded + free, rtol=1e-4, atol=1e-5
    )
    given = Actions(space, "squash").to_env(torch.tensor([[0.0, 7.0], [50.0, -7.0], [-50.0, 0.0]]))
    np.testing.assert_allclose(given, [[1, 7], [3, -7], [-1, 0]])


def test_clipped_actions_stay_in_their_box_whose_bounds_are_one():
    space = Box(np.float32([-1, 0, 10]), np.float32([1, np.inf, 14]))
    given = Actions(space).to_env(torch.tensor([[-5.0, -5.0, -5.0], [5.0, 5.0, 5.0], [0.5, 0.5, 0.5]]))
    assert given.tolist() == [[-1, 0, 10], [1, 5, 14], [0.5, 0.5, 13]]
    assert given.dtype == space.dtype


@pytest.mark.parametrize(
    ("space", "log_std"),
    [
        (Discrete(3), None),
        (MultiDiscrete([2, 3]), None),
        (MultiBinary(2), None),
        (Box(-np.inf, np.inf, (2,)), torch.tensor([0.3, -0.3])),
    ],
    ids=lambda x: type(x).__name__,
)
def test_samples_have_the_entropy_that_is_said(space, log_std):
    """The mean of -log p of samples is the entropy, to three standard errors."""
    torch.manual_seed(1)
    actions, parameters = Actions(space), numbers(space, 1).expand(N, -1)
    log_p, entropy = actions.evaluate(parameters, log_std, None, actions.sample(parameters, log_std, None, False))
    assert abs(float(-log_p.mean() - entropy[0])) < 3 * float(log_p.std()) / N**0.5


def test_greedy_is_the_likeliest():
    assert Actions(Discrete(3)).sample(torch.tensor([[0.0, 2.0, 1.0]]), None, None, True).tolist() == [1]
    two = Actions(MultiDiscrete([2, 2])).sample(torch.tensor([[0.0, 2.0, 1.0, 0.0]]), None, None, True)
    assert two.tolist() == [[1, 0]]
    assert Actions(MultiBinary(2)).sample(torch.tensor([[0.1, -0.1]]), None, None, True).tolist() == [[1, 0]]
    mean = torch.tensor([[0.1, -0.1]])
    assert torch.equal(Actions(Box(-1, 1, (2,))).sample(mean, torch.zeros(2), None, True), mean)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize(
    ("space", "mask"),
    [
        (Discrete(4), [0, 1, 0, 1]),
        (MultiDiscrete([2, 3]), [0, 1, 1, 0, 1]),
        (MultiBinary(3), [0, 1, 0]),
    ],
    ids=lambda x: type(x).__name__,
)
def test_masked_actions_are_never_taken(space, mask, greedy):
    actions, mask = Actions(space), torch.tensor(mask, dtype=torch.bool).expand(N, -1)
    parameters = torch.where(mask, -20.0, 20.0)  # what is masked would be all but certain
    chosen = actions.sample(parameters, None, mask, greedy)
    if isinstance(space, MultiBinary):
        ones = chosen.bool()
    else:
        sizes = [space.n] if isinstance(space, Discrete) else space.nvec.tolist()
        columns = chosen.reshape(N, -1).unbind(-1)
        hot = [torch.nn.functional.one_hot(column, n) for column, n in zip(columns, sizes, strict=True)]
        ones = torch.cat(hot, -1).bool()
    assert bool((~ones | mask).all())


def test_masked_actions_have_no_probability_and_no_gradient():
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False]])
    log_p, entropy = Actions(Discrete(3)).evaluate(logits, None, mask, torch.tensor([0]))
    truth = distributions.Categorical(logits=torch.tensor([[1.0, 2.0]]))
    same((log_p, entropy), truth.log_prob(torch.tensor([0])), truth.entropy())
    (log_p + entropy).sum().backward()
    assert logits.grad[0, 2] == 0
    assert torch.isfinite(logits.grad).all()
    masked, _ = Actions(Discrete(3)).evaluate(logits.detach(), None, mask, torch.tensor([2]))
    assert masked.exp() == 0
