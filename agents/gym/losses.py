"""Losses of an actor-critic, by name, on a minibatch and what the network makes of it.

A loss of one's own is a function ``loss(batch, output)`` that gives a scalar tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hsa2c.agents.gym.settings import ActorCriticConfig


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of a rollout. Without a remark float32 [n]; for vtrace [T, n], whole sequences."""

    actions: Tensor
    log_p: Tensor
    """Of the actions, by the policy that played."""
    values: Tensor
    """As they were when the sample was played."""
    advantages: Tensor
    returns: Tensor
    rewards: Tensor
    terminated: Tensor
    """bool."""
    truncated: Tensor
    """bool."""
    valid: Tensor
    """bool: False for a step that started an episode; there is nothing to learn from."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What the network says of the same samples now."""

    log_p: Tensor
    entropy: Tensor
    values: Tensor
    bootstrap: Tensor
    """Values of the observation after the last step, [n]; empty but for vtrace."""


Loss = Callable[[Batch, Output], Tensor]


def a2c(batch: Batch, output: Output, config: ActorCriticConfig) -> tuple[Tensor, Tensor]:
    """Losses of policy and value: -A log pi, and half the squared error (Mnih et al. 2016, Algorithm S3)."""
    A = _normalised(batch.advantages, batch.valid) if config.normalise_advantages else batch.advantages
    return _mean(-A * output.log_p, batch.valid), _mean(0.5 * (batch.returns - output.values).square(), batch.valid)


def ppo(batch: Batch, output: Output, config: ActorCriticConfig) -> tuple[Tensor, Tensor]:
    """The same with the clipped importance ratio (Schulman et al. 2017, Eq. 7)."""
    A = _normalised(batch.advantages, batch.valid) if config.normalise_advantages else batch.advantages
    ratio = (output.log_p - batch.log_p).exp()
    clipped = ratio.clamp(1 - config.policy_clip, 1 + config.policy_clip)
    policy = -torch.minimum(ratio * A, clipped * A)
    return _mean(policy, batch.valid), _mean(0.5 * (batch.returns - output.values).square(), batch.valid)


def vtrace(batch: Batch, output: Output, config: ActorCriticConfig) -> tuple[Tensor, Tensor]:
    """The same with targets that correct for the policy's age (Espeholt et al. 2018, Eq. 1)."""
    with torch.no_grad():
        targets, advantages = vtrace_targets(
            (output.log_p - batch.log_p).exp(),
            batch.rewards,
            output.values,
            output.bootstrap,
            terminated=batch.terminated,
            truncated=batch.truncated,
            valid=batch.valid,
            discount=config.discount,
            decay=config.gae_lambda,
        )
        if config.normalise_advantages:
            advantages = _normalised(advantages, batch.valid)
    value = _mean(0.5 * (targets - output.values).square(), batch.valid)
    return _mean(-advantages * output.log_p, batch.valid), value


def vtrace_targets(
    ratios: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap: Tensor,
    *,
    terminated: Tensor,
    truncated: Tensor,
    valid: Tensor,
    discount: float,
    decay: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """v_s and the policy's advantages rho_s (r_s + discount v_{s+1} - V(x_s)), [T, n] each; rho_bar = c_bar = 1.

    Args:
        ratios: pi / mu of the actions, [T, n].
        rewards: [T, n].
        values: V of the state before each step, [T, n].
        bootstrap: V of the state after the last step, [n].
        terminated: bool [T, n].
        truncated: bool [T, n].
        valid: bool [T, n]; False where a step only started an episode.
        discount: gamma.
        decay: lambda, remark 2 of the source: c_i = lambda min(1, ratio).

    Source: Espeholt et al. 2018, section 4.1.
    """
    rho = ratios.clamp(max=1.0)
    following = torch.where(terminated, 0.0, torch.cat([values[1:], bootstrap[None]]))
    deltas = torch.where(valid, rho * (rewards + discount * following - values), 0.0)
    goes_on = valid & ~(terminated | truncated)
    trace = torch.where(goes_on, discount * decay * rho, 0.0)
    errors, error = torch.zeros_like(values), torch.zeros_like(bootstrap)
    for s in reversed(range(len(rewards))):
        error = errors[s] = deltas[s] + trace[s] * error
    targets = values + errors
    # v_{s+1}; V where the episode was cut, 0 where it ended
    after = torch.where(goes_on, torch.cat([targets[1:], bootstrap[None]]), following)
    advantages = torch.where(valid, rho * (rewards + discount * after - values), 0.0)
    return targets, advantages


LOSSES = {"a2c": a2c, "ppo": ppo, "vtrace": vtrace}


def _mean(x: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, x, 0.0).sum() / valid.sum().clamp(min=1)


def _normalised(x: Tensor, valid: Tensor) -> Tensor:
    mean = _mean(x, valid)
    deviation = _mean((x - mean).square(), valid).sqrt()
    return (x - mean) / (deviation + 1e-8)
