"""Losses of minibatches in numpy, with their gradients by hand: see `hsa2c.agents.gym.distributions` and
`hsa2c.agents.gym.losses`, to whose automatic gradients tests hold them.

Arrays are float32; n is samples, P the numbers of the policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, MultiBinary

from hsa2c.agents.gym.distributions import NEVER, Actions
from hsa2c.agents.gym.settings import ActorCriticConfig

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

LOSSES = ("a2c", "ppo")
"""Those that are here."""


class Density(NamedTuple):
    """Of actions, by a network's numbers."""

    log_p: Floats
    """[n]."""
    entropy: Floats
    """[n]."""
    backward: Callable[[Floats, Floats], tuple[Floats, Floats | None]]
    """Of a loss's gradients by `log_p` [n] and `entropy` [n], those by the numbers [n, P] and the log_std [P]."""


class Samples(NamedTuple):
    """See `hsa2c.agents.gym.losses.Batch`; [n] each."""

    log_p: Floats
    advantages: Floats
    returns: Floats
    valid: Bools


class Loss(NamedTuple):
    """Its parts, and its gradients."""

    policy: float
    value: float
    entropy: float
    kl: float
    to_parameters: Floats
    """[n, P]."""
    to_values: Floats
    """[n]."""
    to_log_std: Floats | None
    """[P]."""


def density(
    actions: Actions, parameters: Floats, log_std: Floats | None, mask: Bools | None, taken: npt.NDArray[Any]
) -> Density:
    """What `Actions.evaluate` gives, with gradients."""
    if isinstance(actions.space, Box):
        assert log_std is not None
        return _gaussian(actions, parameters, log_std, taken)
    if mask is not None:
        parameters = np.where(mask, parameters, np.float32(NEVER))
    if isinstance(actions.space, MultiBinary):
        return _bernoulli(parameters, taken)
    return _categorical(parameters, actions.parts, taken.reshape(len(taken), -1))


def loss(density: Density, values: Floats, samples: Samples, config: ActorCriticConfig) -> Loss:
    """The loss that `config` names, its value's and its entropy's with their weights, and its gradient."""
    share = np.float32(1 / max(int(np.count_nonzero(samples.valid)), 1))
    weights = np.where(samples.valid, share, np.float32(0))  # of a mean over what is valid
    A = samples.advantages
    if config.normalise_advantages:
        A = A - A.dot(weights)
        A = A / (math.sqrt((A * A).dot(weights)) + 1e-8)
    change = density.log_p - samples.log_p
    if config.loss == "ppo":
        ratio = np.exp(change)
        gain = ratio * A
        clipped = np.minimum(np.maximum(ratio, 1 - config.policy_clip), 1 + config.policy_clip) * A
        policy = -np.minimum(gain, clipped).dot(weights)
        to_log_p = gain * -weights * (gain <= clipped)
    else:
        to_log_p = A * -weights
        policy = density.log_p.dot(to_log_p)
    errors = values - samples.returns
    to_parameters, to_log_std = density.backward(to_log_p, weights * np.float32(-config.entropy_weight))
    return Loss(
        policy=float(policy),
        value=0.5 * float((errors * errors).dot(weights)),
        entropy=float(density.entropy.dot(weights)),
        kl=-float(change.dot(weights)),
        to_parameters=to_parameters,
        to_values=config.value_weight * weights * errors,
        to_log_std=to_log_std,
    )


def _categorical(logits: Floats, sizes: list[int], columns: npt.NDArray[np.int64]) -> Density:
    """Of independent choices, whose logits follow one another."""
    rows = np.arange(len(logits))
    log_p, entropy = np.zeros((2, len(logits)), np.float32)
    parts = []
    begin = 0
    for k, n in enumerate(sizes):
        z = logits[:, begin : begin + n]
        z = z - np.maximum.reduce(z, 1, keepdims=True)
        p = np.exp(z)
        total = np.add.reduce(p, 1, keepdims=True)
        p /= total
        z -= np.log(total)
        H = -np.add.reduce(p * z, 1)
        parts.append((p, z, H, columns[:, k]))
        log_p, entropy = log_p + z[rows, columns[:, k]], entropy + H
        begin += n

    def backward(to_log_p: Floats, to_entropy: Floats) -> tuple[Floats, None]:
        found: list[Floats] = []
        for p, z, H, column in parts:
            d: Floats = p * (-to_log_p[:, None] - to_entropy[:, None] * (z + H[:, None]))
            d[rows, column] += to_log_p
            found.append(d)
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1), None

    return Density(log_p, entropy, backward)


def _bernoulli(logits: Floats, taken: Floats) -> Density:
    """Of independent coins: taken [n, P] is 0 or 1."""
    p: Floats = np.exp(-np.maximum(logits, np.float32(-80)))
    p += 1
    np.reciprocal(p, out=p)
    softplus = np.logaddexp(np.float32(0), logits)

    def backward(to_log_p: Floats, to_entropy: Floats) -> tuple[Floats, None]:
        d: Floats = to_log_p[:, None] * (taken - p) - to_entropy[:, None] * (logits * p * (np.float32(1) - p))
        return d, None

    return Density((taken * logits - softplus).sum(1), (softplus - logits * p).sum(1), backward)


def _gaussian(actions: Actions, means: Floats, log_std: Floats, taken: Floats) -> Density:
    """Of independent numbers, or of their tanh: taken [n, P] are those before it."""
    std: Floats = np.exp(log_std)
    z = (taken - means) / std
    densities = -0.5 * z * z - (log_std + np.float32(0.5 * math.log(2 * math.pi)))
    if actions.squash:  # which the policy's numbers do not change
        change = 2 * (math.log(2) - taken - np.logaddexp(np.float32(0), -2 * taken))
        densities -= np.where(actions.bounded, change, np.float32(0))
    entropy = np.full(len(means), (log_std + np.float32(0.5 * math.log(2 * math.pi * math.e))).sum(), np.float32)

    def backward(to_log_p: Floats, to_entropy: Floats) -> tuple[Floats, Floats]:
        d: Floats = to_log_p[:, None] * (z / std)
        return d, to_log_p.dot(z * z - 1) + to_entropy.sum()

    return Density(densities.sum(1), entropy, backward)
