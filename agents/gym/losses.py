"""Losses of an actor-critic, by name, on a minibatch and what the network makes of it.

A loss of one's own is a function ``loss(batch, output)`` that gives a scalar tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from gymnasium.spaces import Space
from torch import Tensor

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.settings import ActorCriticConfig
from hsa2c.agents.returns import vtrace_targets
from hsa2c.errors import ConfigError, ProblemError


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
    advantages, targets = map(
        torch.from_numpy,
        vtrace_targets(
            (output.log_p.detach() - batch.log_p).exp().numpy(),
            batch.rewards.numpy(),
            output.values.detach().numpy(),
            output.bootstrap.numpy(),
            terminated=batch.terminated.numpy(),
            truncated=batch.truncated.numpy(),
            valid=batch.valid.numpy(),
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        ),
    )
    if config.normalise_advantages:
        advantages = _normalised(advantages, batch.valid)
    value = _mean(0.5 * (targets - output.values).square(), batch.valid)
    return _mean(-advantages * output.log_p, batch.valid), value


def scalar(loss: Any) -> Tensor:
    """What a function of one's own gave, if it can be learnt from.

    Raises:
        ProblemError: It cannot.
    """
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        raise ProblemError("agent.loss: must give a scalar tensor that depends on the network's output")
    return loss


def check(loss: Loss, actions: Space[Any], *, sequences: bool) -> None:
    """Let a loss of one's own see a few samples, made up, before any training.

    Args:
        loss: The function.
        actions: Action space.
        sequences: Whether it is to see [T, n].

    Raises:
        ConfigError: It fails, or what it gives cannot be learnt from.
    """
    shape = (4, 2) if sequences else (8,)
    batch, output = _made_up(actions, shape)
    try:
        gave = scalar(loss(batch, output))
    except ProblemError as error:
        raise ConfigError(str(error)) from None
    except Exception as error:
        raise ConfigError(f"agent.loss: fails on {shape} samples: {type(error).__name__}: {error}") from None
    if not bool(torch.isfinite(gave)):
        raise ConfigError(f"agent.loss: is {float(gave.detach())} for samples that are finite, must be a number")


def _made_up(actions: Space[Any], shape: tuple[int, ...]) -> tuple[Batch, Output]:
    def numbers(*size: int) -> Tensor:
        return torch.linspace(-1.0, 1.0, math.prod(size)).reshape(size)

    false = torch.zeros(shape, dtype=torch.bool)
    batch = Batch(
        actions=Actions(actions).empty(shape),
        log_p=numbers(*shape) - 1.0,
        values=numbers(*shape),
        advantages=numbers(*shape),
        returns=numbers(*shape),
        rewards=numbers(*shape),
        terminated=false,
        truncated=false,
        valid=~false,
    )
    output = Output(
        log_p=(numbers(*shape) - 1.5).requires_grad_(),
        entropy=(numbers(*shape) + 1.5).requires_grad_(),
        values=(0.5 * numbers(*shape)).requires_grad_(),
        bootstrap=numbers(*shape[1:] or (0,)),
    )
    return batch, output


LOSSES = {"a2c": a2c, "ppo": ppo, "vtrace": vtrace}


def _mean(x: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, x, 0.0).sum() / valid.sum().clamp(min=1)


def _normalised(x: Tensor, valid: Tensor) -> Tensor:
    mean = _mean(x, valid)
    deviation = _mean((x - mean).square(), valid).sqrt()
    return (x - mean) / (deviation + 1e-8)
