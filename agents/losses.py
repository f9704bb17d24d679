"""The actor-critic losses, as pure functions of float32 tensors over the n valid samples of one update."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-8  # keeps a division by a vanishing deviation finite


class LossParts(NamedTuple):
    """What made a loss: float32 scalars cut from the graph, means over the samples of the update."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    """Nats."""
    approx_kl: Tensor
    """KL divergence of the present policy from the one that acted, nats: mean of ratio - 1 - log ratio."""
    clip_fraction: Tensor
    """Share of samples whose ratio lies outside the clip; 0 without one."""


def log_prob_and_entropy(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """What a policy thinks of actions.

    Args:
        logits: float32 [n, num_actions].
        actions: int64 [n].

    Returns:
        log pi(action), float32 [n], and the entropy of pi in nats, float32 [n].
    """
    log_probs = functional.log_softmax(logits, dim=1)
    log_prob = log_probs.gather(1, actions[:, None]).squeeze(1)
    return log_prob, -(log_probs.exp() * log_probs).sum(dim=1)


def policy_loss(log_prob: Tensor, behaviour_log_prob: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """The loss whose gradient raises the probability of actions that did better than expected.

    With a clip, -mean(min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A)), ratio = pi / pi_behaviour; without,
    -mean(log pi * A). Their gradients are equal where pi is the behaviour policy.

    Args:
        log_prob: log pi(action), float32 [n].
        behaviour_log_prob: The same when the action was taken, float32 [n]; unused without a clip.
        advantages: float32 [n].
        clip: How far the ratio may move from 1, or None.

    Sources: Schulman et al. 2017, Eq. 7; Mnih et al. 2016, section 4.
    """
    if clip is None:
        return -(log_prob * advantages).mean()
    ratio = (log_prob - behaviour_log_prob).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages).mean()


def value_loss(values: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of values [n] against returns [n]."""
    return 0.5 * functional.mse_loss(values, returns)


def actor_critic_loss(
    logits: Tensor,
    values: Tensor,
    *,
    actions: Tensor,
    behaviour_log_prob: Tensor,
    advantages: Tensor,
    returns: Tensor,
    policy_clip: float | None,
    entropy_weight: float,
    value_weight: float,
) -> tuple[Tensor, LossParts]:
    """Policy loss + value_weight * value loss - entropy_weight * mean entropy.

    Args:
        logits: Of the present policy, float32 [n, num_actions].
        values: Of the present network, float32 [n].
        actions: Taken, int64 [n].
        behaviour_log_prob: log pi(action) when it was taken, float32 [n].
        advantages: float32 [n], normalised already if they are to be.
        returns: Targets of the values, float32 [n].
        policy_clip: See `policy_loss`.
        entropy_weight: beta of Mnih et al. 2016.
        value_weight: Of half the mean squared error.

    Returns:
        The loss to call backward on, and its parts.

    Source: Schulman et al. 2017, Eq. 9.
    """
    assert len(actions) > 0, "a mean over no samples would make every weight NaN"
    log_prob, entropies = log_prob_and_entropy(logits, actions)
    of_policy = policy_loss(log_prob, behaviour_log_prob, advantages, policy_clip)
    of_value = value_loss(values, returns)
    entropy = entropies.mean()
    loss = of_policy + value_weight * of_value - entropy_weight * entropy
    with torch.no_grad():
        log_ratio = log_prob - behaviour_log_prob
        off = log_ratio.expm1()  # ratio - 1
        approx_kl = (off - log_ratio).mean()
        clip_fraction = (off.abs() > (math.inf if policy_clip is None else policy_clip)).float().mean()
    return loss, LossParts(of_policy.detach(), of_value.detach(), entropy.detach(), approx_kl, clip_fraction)


def normalise(advantages: Tensor) -> Tensor:
    """Advantages [n] shifted to mean 0 and scaled to standard deviation 1; equal ones, or a single one, become 0."""
    return (advantages - advantages.mean()) / (advantages.std(correction=0) + _EPSILON)


def clip_by_global_norm(gradient: Tensor, max_norm: float) -> float:
    """Scale a flat gradient [dim] in place so that its Euclidean norm is at most `max_norm`.

    Returns:
        The norm before. If that is not finite the gradient is left as it was.

    Source: Pascanu et al. 2013, Algorithm 1.
    """
    norm = float(torch.linalg.vector_norm(gradient))
    if max_norm < norm < math.inf:
        gradient.mul_(max_norm / norm)
    return norm


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - var(returns - values) / var(returns): 1 is perfect, 0 as good as a constant, and 0 if returns are constant.

    Args:
        values: float32 [n].
        returns: float32 [n].
    """
    variance = float(returns.var(correction=0))
    return 1 - float((returns - values).var(correction=0)) / variance if variance > 0 else 0.0
