from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hsa2c.agents.losses import (
    action_log_prob,
    actor_critic_gradient,
    clip_by_global_norm,
    explained_variance,
    normalise,
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


def reference_loss(b, clip, entropy_weight, value_weight):
    """The loss as the papers write it, for automatic differentiation."""
    log_pi = b["logits"].log_softmax(1)
    log_prob = log_pi[torch.arange(len(log_pi)), b["actions"]]
    if clip is None:
        of_policy = -(log_prob * b["advantages"]).mean()
    else:
        ratio = (log_prob - b["behaviour_log_prob"]).exp()
        of_policy = -torch.minimum(ratio * b["advantages"], ratio.clamp(1 - clip, 1 + clip) * b["advantages"]).mean()
    entropy = -(log_pi.exp() * log_pi).sum(1).mean()
    return of_policy + value_weight * 0.5 * (b["values"] - b["returns"]).square().mean() - entropy_weight * entropy


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), clip=st.sampled_from([None, 0.1, 0.2, 0.5]))
def test_parts_equal_the_slow_loop_and_gradients_automatic_differentiation(seed, clip):
    b = batch(seed)
    to_logits, to_values, parts = actor_critic_gradient(**b, policy_clip=clip, entropy_weight=0.03, value_weight=0.7)
    slow = slow_parts(b, clip)
    assert [float(p) for p in parts] == pytest.approx(slow, rel=1e-4, abs=1e-5)
    b["logits"].requires_grad_()
    b["values"].requires_grad_()
    loss = reference_loss(b, clip, 0.03, 0.7)
    assert float(loss.detach()) == pytest.approx(slow[0] + 0.7 * slow[1] - 0.03 * slow[2], rel=1e-4, abs=1e-5)
    loss.backward()
    torch.testing.assert_close(to_logits, b["logits"].grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(to_values, b["values"].grad, rtol=1e-4, atol=1e-6)


def test_arguments_are_left_alone():
    b = batch(0)
    before = {key: value.clone() for key, value in b.items()}
    actor_critic_gradient(**b, policy_clip=0.2, entropy_weight=0.01, value_weight=0.5)
    assert all(torch.equal(b[key], before[key]) for key in b)


def test_no_samples_are_refused():
    with pytest.raises(AssertionError, match="no samples"):
        actor_critic_gradient(**batch(0, n=0), policy_clip=0.2, entropy_weight=0.01, value_weight=0.5)


def test_action_log_prob_by_hand():
    logits = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -1e9, -1e9]]])
    log_prob = action_log_prob(logits, torch.tensor([[2, 0]]))
    torch.testing.assert_close(log_prob, torch.tensor([[0.25, 0.75]]).log())


def one_sample(ratio, advantage, clip):
    """Policy loss, and slope in log pi(a), of one sample of two actions of which the other is as likely."""
    to_logits, _, parts = actor_critic_gradient(
        torch.zeros(1, 2),
        torch.zeros(1),
        actions=torch.tensor([0]),
        behaviour_log_prob=torch.tensor([math.log(0.5 / ratio)]),
        advantages=torch.tensor([advantage]),
        returns=torch.zeros(1),
        policy_clip=clip,
        entropy_weight=0.0,
        value_weight=0.5,
    )
    assert float(to_logits.sum()) == pytest.approx(0, abs=1e-6)
    return float(parts.policy_loss), 2 * float(to_logits[0, 0])  # dlog pi(a) / dlogit_a is 1 - 0.5


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
    assert one_sample(ratio, advantage, 0.2) == pytest.approx((loss, slope), rel=1e-5)


def test_clip_changes_no_gradient_where_the_policy_has_not_moved():
    for advantage in (-2.0, 0.5):
        assert one_sample(1.0, advantage, 0.2)[1] == pytest.approx(one_sample(1.0, advantage, None)[1]) != 0


def test_value_gradient_and_loss_by_hand():
    b = batch(3, n=2) | {"values": torch.tensor([1.0, 2.0]), "returns": torch.tensor([3.0, 1.0])}
    _, to_values, parts = actor_critic_gradient(**b, policy_clip=0.2, entropy_weight=0.01, value_weight=0.5)
    assert float(parts.value_loss) == 0.5 * (4 + 1) / 2
    assert to_values.tolist() == [0.5 * -2 / 2, 0.5 * 1 / 2]


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
