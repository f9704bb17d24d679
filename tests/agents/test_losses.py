from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.losses import (
    actor_critic_loss,
    clip_by_global_norm,
    explained_variance,
    log_prob_and_entropy,
    normalise,
    policy_loss,
    value_loss,
)


def batch(seed: int, n: int = 7, num_actions: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(n, num_actions, generator=g) * 2,
        "values": torch.randn(n, generator=g),
        "actions": torch.randint(0, num_actions, (n,), generator=g),
        "behaviour_log_prob": -torch.rand(n, generator=g) * 3,
        "advantages": torch.randn(n, generator=g),
        "returns": torch.randn(n, generator=g),
    }


def slow_parts(b, clip):
    """Every part as sums over samples and actions, in Python floats."""
    n = len(b["actions"])
    policy = value = entropy = kl = clipped = 0.0
    for i in range(n):
        logits = b["logits"][i].tolist()
        total = sum(math.exp(x) for x in logits)
        pi = [math.exp(x) / total for x in logits]
        action, advantage = int(b["actions"][i]), float(b["advantages"][i])
        entropy -= sum(p * math.log(p) for p in pi)
        ratio = pi[action] / math.exp(float(b["behaviour_log_prob"][i]))
        if clip is None:
            policy -= math.log(pi[action]) * advantage
        else:
            policy -= min(ratio * advantage, max(min(ratio, 1 + clip), 1 - clip) * advantage)
            clipped += abs(ratio - 1) > clip
        value += 0.5 * (float(b["values"][i]) - float(b["returns"][i])) ** 2
        kl += ratio - 1 - math.log(ratio)
    return [x / n for x in (policy, value, entropy, kl, clipped)]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), clip=st.sampled_from([None, 0.1, 0.2, 0.5]))
def test_loss_and_parts_equal_the_slow_loop(seed, clip):
    b = batch(seed)
    loss, parts = actor_critic_loss(**b, policy_clip=clip, entropy_weight=0.03, value_weight=0.7)
    slow = slow_parts(b, clip)
    assert [float(p) for p in parts] == pytest.approx(slow, rel=1e-4, abs=1e-5)
    assert float(loss.detach()) == pytest.approx(slow[0] + 0.7 * slow[1] - 0.03 * slow[2], rel=1e-4, abs=1e-5)


def test_parts_are_cut_from_the_graph_and_the_loss_is_not():
    b = batch(0)
    b["logits"].requires_grad_()
    b["values"].requires_grad_()
    loss, parts = actor_critic_loss(**b, policy_clip=0.2, entropy_weight=0.01, value_weight=0.5)
    assert not any(p.requires_grad for p in parts)
    loss.backward()
    assert b["logits"].grad.any()
    # d/dv of 0.5 * mean((v - R)^2) * 0.5
    torch.testing.assert_close(b["values"].grad, 0.5 * (b["values"].detach() - b["returns"]) / 7)


def test_no_samples_are_refused():
    with pytest.raises(AssertionError, match="no samples"):
        actor_critic_loss(**batch(0, n=0), policy_clip=0.2, entropy_weight=0.01, value_weight=0.5)


def test_log_prob_and_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -1e9, -1e9]])
    log_prob, entropy = log_prob_and_entropy(logits, torch.tensor([2, 0]))
    torch.testing.assert_close(log_prob, torch.tensor([0.25, 0.75]).log())
    torch.testing.assert_close(entropy, torch.tensor([math.log(4), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # slope: of the loss in log pi, by hand: -ratio * A where the unclipped term is the smaller, else 0
        (1.5, 1.0, -1.2, 0.0),
        (1.5, -1.0, 1.5, 1.5),
        (0.5, 1.0, -0.5, -0.5),
        (0.5, -1.0, 0.8, 0.0),
        (1.1, 2.0, -2.2, -2.2),
    ],
)
def test_clipped_surrogate_by_hand(ratio, advantage, loss, slope):
    log_prob = torch.tensor([math.log(ratio) - 1.0], requires_grad=True)
    result = policy_loss(log_prob, torch.tensor([-1.0]), torch.tensor([advantage]), 0.2)
    result.backward()
    assert float(result.detach()) == pytest.approx(loss, rel=1e-5)
    assert float(log_prob.grad) == pytest.approx(slope, rel=1e-5)


def test_clip_changes_no_gradient_where_the_policy_has_not_moved():
    b = batch(5)
    gradients = []
    for clip in (0.2, None):
        logits = b["logits"].clone().requires_grad_()
        log_prob, _ = log_prob_and_entropy(logits, b["actions"])
        policy_loss(log_prob, log_prob.detach(), b["advantages"], clip).backward()
        gradients.append(logits.grad)
    assert gradients[0].abs().max() > 0.01
    torch.testing.assert_close(gradients[0], gradients[1])


def test_value_loss_by_hand():
    assert float(value_loss(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]))) == 0.5 * (4 + 1) / 2


def test_normalise():
    torch.testing.assert_close(normalise(torch.tensor([1.0, 3.0, 1.0, 3.0])), torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert torch.equal(normalise(torch.tensor([5.0])), torch.zeros(1))
    assert torch.equal(normalise(torch.full((4,), 2.0)), torch.zeros(4))


def test_clip_by_global_norm():
    gradient = torch.tensor([3.0, 0.0, 4.0])
    assert clip_by_global_norm(gradient, 10.0) == 5.0
    assert torch.equal(gradient, torch.tensor([3.0, 0.0, 4.0]))
    assert clip_by_global_norm(gradient, 1.0) == 5.0
    torch.testing.assert_close(gradient, torch.tensor([0.6, 0.0, 0.8]))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_clip_by_global_norm_reports_what_is_not_finite(bad):
    gradient = torch.tensor([1.0, bad])
    assert not math.isfinite(clip_by_global_norm(gradient, 1.0))
    assert float(gradient[0]) == 1.0


def test_explained_variance():
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(4), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)  # residual 2 R: 1 - 4
    assert explained_variance(returns, torch.ones(4)) == 0.0
