"""The actor-critic loss by its gradient: pure functions of float32 tensors over the n valid samples of an update."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-8  # keeps a division by a vanishing deviation finite


class LossParts(NamedTuple):
    """What made a loss: float32 scalars, means over the samples of the update."""

    policy_loss: Tensor
    value_loss: Tensor
    entropy: Tensor
    """Nats."""
    approx_kl: Tensor
    """KL divergence of the present policy from the one that acted, nats: mean of ratio - 1 - log ratio."""
    clip_fraction: Tensor
    """Share of samples whose ratio lies outside the clip; 0 without one."""


def action_log_prob(logits: Tensor, actions: Tensor) -> Tensor:
    """Log pi(action), float32 [...], from logits float32 [..., num_actions] and actions int64 [...]."""
    return functional.log_softmax(logits, dim=-1).gather(-1, actions[..., None]).squeeze(-1)


def actor_critic_gradient(
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
) -> tuple[Tensor, Tensor, LossParts]:
    """How to move logits and values: the gradient of L, in closed form (Schulman et al. 2017, Eq. 7 and 9).

    L = L_pi + value_weight * L_V - entropy_weight * H, means over the n samples: L_pi of `policy_loss`, (V - R)^2 / 2,
    and H = -sum_k pi_k log pi_k. dlog pi(a) / dlogits_k = (1 if k = a else 0) - pi_k does the rest.

    Args:
        logits: Of the present policy, float32 [n, num_actions].
        values: Of the present network, float32 [n].
        actions: Taken, int64 [n].
        behaviour_log_prob: log pi(action) when it was taken, float32 [n]; decides nothing without a clip.
        advantages: float32 [n], normalised already if they are to be.
        returns: Targets of the values, float32 [n].
        policy_clip: How far the ratio may move from 1, or None.
        entropy_weight: beta of Mnih et al. 2016, section 4.
        value_weight: c_1 of Schulman et al. 2017.

    Returns:
        dL / dlogits, float32 [n, num_actions]; dL / dvalues, float32 [n]; and the parts of L.
    """
    n = len(actions)
    assert n > 0, "a mean over no samples would make every weight NaN"
    log_pi = functional.log_softmax(logits, dim=1)
    log_prob = log_pi.gather(1, actions[:, None]).squeeze(1)
    policy = policy_loss(log_prob, behaviour_log_prob, advantages, policy_clip)
    to_logits, entropy = _logits_gradient(log_pi, actions, policy.to_log_prob, entropy_weight)
    error = values - returns
    parts = LossParts(policy.loss, 0.5 * error.square().mean(), entropy, policy.approx_kl, policy.clip_fraction)
    return to_logits.div_(n), error.mul_(value_weight / n), parts


class PolicyLoss(NamedTuple):
    """L_pi, and what to do about it."""

    loss: Tensor
    """Mean over the samples."""
    to_log_prob: Tensor
    """n dL_pi / dlog pi(a) of each sample, float32 [n]."""
    approx_kl: Tensor
    """See `LossParts`."""
    clip_fraction: Tensor
    """See `LossParts`."""


def policy_loss(
    log_prob: Tensor, behaviour_log_prob: Tensor, advantages: Tensor, policy_clip: float | None
) -> PolicyLoss:
    """L_pi = -min(r A, clamp(r, 1 - clip, 1 + clip) A), r = pi(a) / pi_behaviour(a).

    dL_pi / dlog pi(a) = -r A where the first is the smaller, else 0. Without a clip -log pi(a) A, and -A: equal where
    pi is the behaviour policy. For the arguments, float32 [n] each, see `actor_critic_gradient`.
    """
    log_ratio = log_prob - behaviour_log_prob
    off = log_ratio.expm1()  # ratio - 1
    approx_kl = (off - log_ratio).mean()
    if policy_clip is None:
        return PolicyLoss((-log_prob * advantages).mean(), -advantages, approx_kl, torch.zeros(()))
    free, held = (off + 1) * advantages, (off.clamp(-policy_clip, policy_clip) + 1) * advantages
    clip_fraction = (off.abs() > policy_clip).float().mean()
    return PolicyLoss(-torch.minimum(free, held).mean(), -free * (free <= held), approx_kl, clip_fraction)


def _logits_gradient(
    log_pi: Tensor, actions: Tensor, to_log_prob: Tensor, entropy_weight: float
) -> tuple[Tensor, Tensor]:
    """Of n L_pi - entropy_weight n H, float32 [n, num_actions]; and H. dH / dlogits_k = -pi_k (log pi_k + H)."""
    pi = log_pi.exp()
    entropies = -(pi * log_pi).sum(dim=1)
    to_logits = pi * -to_log_prob[:, None]
    to_logits.scatter_add_(1, actions[:, None], to_log_prob[:, None])
    to_logits.add_(pi * (log_pi + entropies[:, None]), alpha=entropy_weight)
    return to_logits, entropies.mean()


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
