"""Losses of an actor-critic, by hand."""

import dataclasses

import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from hsa2c.agents.gym.losses import LOSSES, Batch, Output, check
from hsa2c.agents.gym.settings import ActorCriticConfig
from hsa2c.errors import ConfigError

PLAIN = ActorCriticConfig(normalise_advantages=False)


def batch(**given):
    n = len(given["log_p"])
    zeros, no = torch.zeros(n), torch.zeros(n, dtype=torch.bool)
    names = {field.name: zeros for field in dataclasses.fields(Batch)}
    return Batch(**{**names, "terminated": no, "truncated": no, "valid": ~no, **given})


def output(log_p, values):
    return Output(log_p=log_p, entropy=torch.zeros_like(log_p), values=values, bootstrap=values[:0])


def test_a2c_by_hand():
    given = batch(
        log_p=torch.zeros(3), advantages=torch.tensor([2.0, -1.0, 9.0]), returns=torch.tensor([1.0, 2.0, 9.0])
    )
    given = dataclasses.replace(given, valid=torch.tensor([True, True, False]))
    policy, value = LOSSES["a2c"](given, output(torch.tensor([-1.0, -3.0, 5.0]), torch.tensor([0.0, 4.0, 0.0])), PLAIN)
    assert float(policy) == pytest.approx((2 * 1 - 1 * 3) / 2)
    assert float(value) == pytest.approx((0.5 * 1 + 0.5 * 4) / 2)


def test_ppo_by_hand():
    """Ratios 1.5, 0.5, 1.5, 0.5 with advantages of both signs: clipped where that is the lower."""
    ratios, A = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    given = batch(log_p=torch.zeros(4), advantages=A)
    log_p = ratios.log().requires_grad_()
    policy, _ = LOSSES["ppo"](given, output(log_p, torch.zeros(4)), PLAIN)
    assert policy.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    policy.backward()
    assert log_p.grad.tolist() == pytest.approx([0, -0.5 / 4, 1.5 / 4, 0])  # nothing where it is clipped


def test_ppo_of_the_policy_that_played_has_the_gradient_of_a2c():
    given = batch(log_p=torch.randn(6), advantages=torch.randn(6))
    grads = []
    for loss in ("a2c", "ppo"):
        log_p = given.log_p.clone().requires_grad_()
        LOSSES[loss](given, output(log_p, torch.zeros(6)), ActorCriticConfig())[0].backward()
        grads.append(log_p.grad)
    torch.testing.assert_close(*grads)


def test_advantages_are_normalised_over_what_is_valid():
    A = torch.tensor([1.0, 3.0, 100.0])
    given = dataclasses.replace(batch(log_p=torch.zeros(3), advantages=A), valid=torch.tensor([True, True, False]))
    log_p = torch.zeros(3, requires_grad=True)
    LOSSES["a2c"](given, output(log_p, torch.zeros(3)), ActorCriticConfig())[0].backward()
    assert log_p.grad.tolist() == pytest.approx([0.5, -0.5, 0])


def test_vtrace_weighs_what_the_policy_has_left_by_its_ratio():
    """Two steps of one environment, which end; ratios 2 (cut to 1) and 0.5. Targets: see test_returns."""
    no, end = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[False], [True]])
    ratios, zeros = torch.tensor([[2.0], [0.5]]), torch.zeros(2, 1)
    given = dataclasses.replace(
        batch(log_p=zeros, rewards=torch.tensor([[1.0], [3.0]])), terminated=end, truncated=no, valid=~no
    )
    log_p, values = ratios.log().requires_grad_(), torch.tensor([[1.0], [2.0]], requires_grad=True)
    said = Output(log_p=log_p, entropy=zeros, values=values, bootstrap=torch.tensor([7.0]))
    config = ActorCriticConfig(normalise_advantages=False, discount=0.5, gae_lambda=1.0)
    policy, value = LOSSES["vtrace"](given, said, config)
    (policy + value).backward()
    assert log_p.grad.ravel().tolist() == pytest.approx([-1.25 / 2, -0.5 / 2])
    assert values.grad.ravel().tolist() == pytest.approx([(1 - 2.25) / 2, (2 - 2.5) / 2])


@pytest.mark.parametrize("space", [Discrete(3), MultiDiscrete([2, 3]), Box(-1, 1, (2,))], ids=str)
@pytest.mark.parametrize("sequences", [False, True])
def test_a_loss_of_ones_own_sees_samples_of_the_shapes_of_training(space, sequences):
    seen = []

    def loss(batch, output):
        seen.append((batch, output))
        assert batch.valid.all()
        return -(batch.advantages * output.log_p).mean() + (batch.returns - output.values).square().mean()

    check(loss, space, sequences=sequences)
    [(batch, output)] = seen
    shape = (4, 2) if sequences else (8,)
    assert batch.log_p.shape == output.values.shape == batch.actions.shape[: len(shape)] == shape
    assert output.bootstrap.shape == ((2,) if sequences else (0,))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (lambda batch, output: 1 / 0, "agent.loss: fails on (8,) samples: ZeroDivisionError"),
        (lambda batch: 0.0, "agent.loss: fails on (8,) samples: TypeError"),
        (lambda batch, output: None, "agent.loss: must give a scalar tensor"),
        (lambda batch, output: output.log_p, "agent.loss: must give a scalar tensor"),
        (lambda batch, output: batch.returns.mean(), "that depends on the network's output"),
        (lambda batch, output: output.log_p.mean() * float("nan"), "agent.loss: is nan for samples that are finite"),
    ],
    ids=["raises", "arguments", "nothing", "vector", "constant", "nan"],
)
def test_a_loss_of_ones_own_is_refused_before_training(loss, said):
    with pytest.raises(ConfigError) as refused:
        check(loss, Discrete(3), sequences=False)
    assert said in str(refused.value)
