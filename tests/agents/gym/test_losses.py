"""Losses of an actor-critic: by hand, and V-trace against its formula written as loops."""

import dataclasses

import numpy as np
import pytest
import torch

from hsa2c.agents.gym.losses import LOSSES, Batch, Output, vtrace_targets
from hsa2c.agents.gym.settings import ActorCriticConfig
from hsa2c.agents.returns import gae, n_step_returns

T, N = 12, 5
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


@pytest.fixture
def play():
    """A rollout with ends of both kinds, each followed by its reset, and a fault in the midst of an episode."""
    random = np.random.default_rng(3)
    terminated, truncated, valid = np.zeros((T, N), bool), np.zeros((T, N), bool), np.ones((T, N), bool)
    terminated[[2, 11], [0, 1]] = truncated[[4, 11, 0], [0, 2, 3]] = True
    valid[[3, 5, 1, 6], [0, 0, 3, 4]] = False
    rewards = np.where(valid, random.normal(size=(T, N)), 0).astype(np.float32)
    values = random.normal(size=(T + 1, N)).astype(np.float32)
    ratios = np.exp(random.normal(size=(T, N))).astype(np.float32)
    return ratios, rewards, values, {"terminated": terminated, "truncated": truncated, "valid": valid}


def targets(play, ratios, discount, decay):
    _, rewards, values, ends = play
    tensors = (torch.from_numpy(x) for x in (ratios, rewards, values[:-1], values[-1]))
    flags = {name: torch.from_numpy(x) for name, x in ends.items()}
    return [x.numpy() for x in vtrace_targets(*tensors, **flags, discount=discount, decay=decay)]


def slow_vtrace(play, discount, decay):
    """Eq. 1 as the sum of products that it is, and the policy's advantages, in double precision."""
    ratios, rewards, values, ends = play
    values = values.astype(float)
    rho, c = np.minimum(ratios, 1).astype(float), decay * np.minimum(ratios, 1).astype(float)
    v, A = values.copy(), np.zeros((T, N))
    for i in range(N):

        def over(t, i=i):  # nothing of the same episode comes after step t
            return ends["terminated"][t, i] or ends["truncated"][t, i] or not ends["valid"][t, i]

        def after(t, x, i=i):
            return 0.0 if ends["terminated"][t, i] else x[t + 1, i]

        for s in range(T):
            product, discounts = 1.0, 1.0
            for t in range(s, T):
                if not ends["valid"][t, i]:
                    break
                delta = rho[t, i] * (rewards[t, i] + discount * after(t, values) - values[t, i])
                v[s, i] += discounts * product * delta
                if over(t):
                    break
                product, discounts = product * c[t, i], discounts * discount
        for s in range(T):
            following = values if over(s) else v
            if ends["valid"][s, i]:
                A[s, i] = rho[s, i] * (rewards[s, i] + discount * after(s, following) - values[s, i])
    return v[:-1], A


@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_vtrace_is_its_formula(play, decay):
    found = targets(play, play[0], 0.9, decay)
    for got, want in zip(found, slow_vtrace(play, 0.9, decay), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_vtrace_on_policy_is_n_step_returns_and_gae(play):
    _, rewards, values, ends = play
    ones = np.ones((T, N), np.float32)
    given = (rewards, values[:-1], values[-1])
    np.testing.assert_allclose(
        targets(play, ones, 0.9, 1.0)[0], n_step_returns(*given, **ends, discount=0.9), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        targets(play, ones, 0.9, 0.6)[0], gae(*given, **ends, discount=0.9, gae_lambda=0.6)[1], rtol=1e-4, atol=1e-5
    )


def test_vtrace_by_hand():
    """Two steps, the second terminates; ratios 2 (cut to 1) and 0.5; discount 0.5."""
    column = [torch.tensor([[a], [b]]) for a, b in ((2.0, 0.5), (1.0, 3.0), (1.0, 2.0))]
    no, end = torch.zeros(2, 1, dtype=torch.bool), torch.tensor([[False], [True]])
    v, A = vtrace_targets(*column, torch.tensor([7.0]), terminated=end, truncated=no, valid=~no, discount=0.5)
    # delta_1 = 0.5 (3 - 2) = 0.5; delta_0 = 1 (1 + 0.5 * 2 - 1) = 1
    assert v.ravel().tolist() == pytest.approx([1 + 1 + 0.5 * 1 * 0.5, 2 + 0.5])
    assert A.ravel().tolist() == pytest.approx([1 + 0.5 * 2.5 - 1, 0.5 * (3 - 2)])
