"""The towers of an agent that sees numbers, in numpy, and their gradient: a few operations on a few rows, for which
torch's dispatch would cost more than the arithmetic.

The same function of the same weights as `hsa2c.agents.gym.networks.Agent`, which are views of the same memory. Tests
hold outputs and gradients to it and to automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Discrete, MultiDiscrete, Space
from torch import Tensor, nn

from hsa2c.agents.gym.networks import Agent
from hsa2c.agents.gym.spaces import Arrays, width
from hsa2c.agents.gym.statistics import MOST, Statistics
from hsa2c.agents.network import parameter_views

Floats = npt.NDArray[np.float32]


class MLP:
    """Policy and value of an agent that has two towers, of observations as arrays.

    Args:
        agent: Has the weights.
        statistics: What observations are normalised by.
        g: Where gradients go, float32 [dim].

    Attributes:
        size: Numbers that the towers see.
        policy: Of what they see [n, size], the numbers of the policy [n, P].
        value: The same, the values [n, 1].
        log_std: Of the policy over a Box, float32 [P].
        g_log_std: Its part of g.
    """

    def __init__(self, agent: Agent, statistics: Statistics, g: Tensor) -> None:
        self._agent, self._statistics = agent, statistics
        spaces = agent.encoder.spaces
        self._leaves = [(path, _encoder(space)) for path, space in spaces.items()]
        # how many columns a leaf has, and whether it is normalised
        self._columns = [(width(space), path in statistics.paths) for path, space in spaces.items()]
        self.size = sum(n for n, _ in self._columns)
        views = zip(agent.parameters(), parameter_views(agent, g), strict=True)
        places = {id(parameter): view.numpy() for parameter, view in views}
        self.policy, self.value = _Tower(agent.policy, places), _Tower(agent.value, places)
        self.g_log_std: Floats | None = None if agent.log_std is None else places[id(agent.log_std)]
        self.bind()
        self._moments: tuple[Floats, Floats] | None = None

    def bind(self) -> None:
        """Use the weights where the agent has them now."""
        self.policy.bind()
        self.value.bind()
        self.log_std: Floats | None = None if self._agent.log_std is None else self._agent.log_std.detach().numpy()

    def read(self, tail: Tensor) -> None:
        """Normalise by the statistics at the end of v, from now on."""
        self._moments = self._statistics.all_moments(tail)
        if self._moments is None or all(normalised for _, normalised in self._columns):
            return
        mean, deviation = self._moments
        means, deviations, begin = [], [], 0
        for n, normalised in self._columns:
            means.append(mean[begin : begin + n] if normalised else np.zeros(n, np.float32))
            deviations.append(deviation[begin : begin + n] if normalised else np.ones(n, np.float32))
            begin += n if normalised else 0
        self._moments = np.concatenate(means), np.concatenate(deviations)

    def see(self, observations: Arrays) -> Floats:
        """What the towers see of observations, leaves [n, ...]: float32 [n, size]."""
        parts = [encode(observations[path]) for path, encode in self._leaves]
        x = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self._moments is None:
            return x
        mean, deviation = self._moments
        x = x - mean
        x /= deviation
        np.maximum(x, -MOST, out=x)
        return np.minimum(x, MOST, out=x)


class _Tower:
    """Linear and tanh in turn, a linear last."""

    def __init__(self, module: nn.Module, places: Mapping[int, Floats]) -> None:
        self._modules = [part for part in module.modules() if isinstance(part, nn.Linear)]
        self._gradients = [(places[id(part.weight)], places[id(part.bias)]) for part in self._modules]
        self._seen: list[Floats] = []

    def bind(self) -> None:
        """Use the weights where the module has them now."""
        self._weights = [part.weight.detach().numpy() for part in self._modules]
        self._biases = [part.bias.detach().numpy() for part in self._modules]

    def __call__(self, x: Floats) -> Floats:
        """Of [n, inputs], [n, outputs]."""
        self._seen = [x]
        for weight, bias in zip(self._weights[:-1], self._biases, strict=False):
            x = x.dot(weight.T)
            x += bias
            np.tanh(x, out=x)
            self._seen.append(x)
        x = x.dot(self._weights[-1].T)
        x += self._biases[-1]
        return x

    def backward(self, to_output: Floats) -> None:
        """The gradient of a loss by the weights, of the loss's by the output of the last call, [n, outputs]."""
        d = to_output
        for k in range(len(self._weights) - 1, -1, -1):
            g_weight, g_bias = self._gradients[k]
            np.dot(d.T, self._seen[k], out=g_weight)
            np.add.reduce(d, 0, out=g_bias)
            if k:
                d = d.dot(self._weights[k])
                d *= 1 - self._seen[k] ** 2


def has_towers(agent: Agent) -> bool:
    """Whether an agent is what `MLP` computes."""
    return agent.own is None and agent.core is None and not len(agent.encoder.convolutions)


def _encoder(space: Space[Any]) -> Callable[[npt.NDArray[Any]], Floats]:
    """A leaf of observations [n, ...] as columns, float32 [n, width]: see `hsa2c.agents.gym.networks.Encoder`."""
    if isinstance(space, Discrete):
        return _ones([int(space.n)], np.asarray(space.start))
    if isinstance(space, MultiDiscrete):
        return _ones([int(n) for n in space.nvec.ravel()], space.start)
    columns = width(space)

    def numbers(x: npt.NDArray[Any]) -> Floats:
        return x.reshape(-1, columns).astype(np.float32, copy=False)

    return numbers


def _ones(sizes: list[int], start: npt.NDArray[Any]) -> Callable[[npt.NDArray[Any]], Floats]:
    """Choices as ones among zeros."""
    tables = [np.eye(n, dtype=np.float32) for n in sizes]

    def hot(x: npt.NDArray[Any]) -> Floats:
        columns = (x - start).reshape(len(x), len(tables)).T
        return np.concatenate([table[column] for table, column in zip(tables, columns, strict=True)], axis=1)

    return hot
