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
    """How to move logits and values: the gradient of L, in closed form.

    L = L_pi + value_weight * L_V - entropy_weight * H, means over the n samples of

    - L_pi: -min(r A, clamp(r, 1 - clip, 1 + clip) A), r = pi(a) / pi_behaviour(a): dL_pi / dlog pi(a) = -r A where the
      first is the smaller, else 0. Without a clip -log pi(a) A, and -A: equal where pi is the behaviour policy.
    - L_V: (V - R)^2 / 2.
    - H: -sum_k pi_k log pi_k, so that dH / dlogits_k = -pi_k (log pi_k + H).

    dlog pi(a) / dlogits_k = (1 if k = a else 0) - pi_k does the rest.

    Args:
        logits: Of the present policy, float32 [n, num_actions].
        values: Of the present network, float32 [n].
        actions: Taken, int64 [n].
        behaviour_log_prob: log pi(action) when it was taken, float32 [n]; decides nothing without a clip.
        advantages: float32 [n], normalised already if they are to be.
        returns: Targets of the values, float32 [n].
        policy_clip: How far the ratio may move from 1, or None.
        entropy_weight: beta of Mnih et al. 2016.
        value_weight: c_1 of Schulman et al. 2017.

    Returns:
        dL / dlogits, float32 [n, num_actions]; dL / dvalues, float32 [n]; and the parts of L.

    Sources: Schulman et al. 2017, Eq. 7 and 9; Mnih et al. 2016, section 4.
    """
    n = len(actions)
    assert n > 0, "a mean over no samples would make every weight NaN"
    log_pi = functional.log_softmax(logits, dim=1)
    pi = log_pi.exp()
    log_prob = log_pi.gather(1, actions[:, None]).squeeze(1)
    entropies = -(pi * log_pi).sum(dim=1)
    log_ratio = log_prob - behaviour_log_prob
    off = log_ratio.expm1()  # ratio - 1
    if policy_clip is None:
        losses, to_log_prob = -log_prob * advantages, -advantages
        clip_fraction = torch.zeros(())
    else:
        free, held = (off + 1) * advantages, (off.clamp(-policy_clip, policy_clip) + 1) * advantages
        losses, to_log_prob = -torch.minimum(free, held), -free * (free <= held)
        clip_fraction = (off.abs() > policy_clip).float().mean()

    to_logits = pi * -to_log_prob[:, None]
    to_logits.scatter_add_(1, actions[:, None], to_log_prob[:, None])
    to_logits.add_(pi * (log_pi + entropies[:, None]), alpha=entropy_weight)
    error = values - returns
    parts = LossParts(
        policy_loss=losses.mean(),
        value_loss=0.5 * error.square().mean(),
        entropy=entropies.mean(),
        approx_kl=(off - log_ratio).mean(),
        clip_fraction=clip_fraction,
    )
    return to_logits.div_(n), error.mul_(value_weight / n), parts


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
