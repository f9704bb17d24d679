"""Running means and deviations of observations and returns, as numbers at the end of v.

They are moving averages that start at 0, with the weight that they have gathered beside them (as Kingma and Ba 2015
correct Adam's): mean = m / c. A moving average is linear, so the mean of the nodes' deltas is that of their data. They
are shared, exchanged, saved and loaded as the rest of v, and no optimiser has a hand in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Space
from torch import Tensor

from hsa2c.agents.gym.spaces import normalised

_RATE = 0.01  # of a rollout: what came 100 rollouts ago counts for a third
MOST = 10.0
"""Of a normalised number, both ways (OpenAI baselines' VecNormalize)."""

Floats = npt.NDArray[np.float32]


class Statistics:
    """Where each number stands at the end of v: c, the means m and mean squares s of observations, the same of returns.

    Args:
        spaces: Leaves of the observations (`hsa2c.agents.gym.spaces.leaves`).
        observations: Whether they are normalised.
        rewards: Whether rewards are divided by the deviation of the discounted return.
    """

    def __init__(self, spaces: Mapping[str, Space[Any]], *, observations: bool, rewards: bool) -> None:
        self.paths = [path for path, space in spaces.items() if observations and normalised(space)]
        self._widths = [int(np.prod(spaces[path].shape or (1,))) for path in self.paths]
        self.rewards = rewards
        width = sum(self._widths) + int(rewards)
        self._half = width
        self.size = 2 * width + 1 if width else 0

    def gradient(self, tail: Tensor, observations: Mapping[str, Tensor], returns: Tensor | None) -> Tensor:
        """What line 6 subtracts from the tail, after a rollout.

        Args:
            tail: As it is, float32 [size].
            observations: Leaves, [n, ...] each.
            returns: Discounted sums of rewards so far in their episodes, [n].
        """
        columns = [observations[path].reshape(-1, width) for path, width in zip(self.paths, self._widths, strict=True)]
        if self.rewards:
            assert returns is not None
            columns.append(returns.reshape(-1, 1))
        x = torch.cat(columns, dim=1).float()
        return _RATE * (tail - torch.cat([torch.ones(1), x.mean(0), x.square().mean(0)]))

    def normalise(self, tail: Tensor, path: str, x: Tensor) -> Tensor:
        """A leaf of observations, [n, ...], shifted and scaled; as it is where it is not to be, or nothing is known."""
        if path not in self.paths:
            return x
        found = self.moments(tail, path)
        return x.float() if found is None else scaled(x, *found)

    def moments(self, tail: Tensor, path: str) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of a leaf, [width] each; None where it is not normalised, or nothing is known."""
        if path not in self.paths or tail[0] <= 0:
            return None
        k = self.paths.index(path)
        begin = 1 + sum(self._widths[:k])
        mean, deviation = self._moments(tail, begin, begin + self._widths[k])
        return torch.from_numpy(mean), torch.from_numpy(deviation)

    def all_moments(self, tail: Tensor) -> tuple[Floats, Floats] | None:
        """Mean and deviation of all leaves that are normalised, in their order; None where there is none, or nothing is
        known.
        """
        if not self.paths or tail.numpy()[0] <= 0:
            return None
        return self._moments(tail, 1, 1 + sum(self._widths))

    def reward_scale(self, tail: Tensor) -> float:
        """By which rewards are divided."""
        if not self.rewards or tail[0] <= 0:
            return 1.0
        return self._moments(tail, self._half, self._half + 1)[1].item()

    def _moments(self, tail: Tensor, begin: int, end: int) -> tuple[Floats, Floats]:
        numbers = tail.numpy()
        mean = numbers[begin:end] / numbers[0]
        square = mean * mean
        variance = numbers[begin + self._half : end + self._half] / numbers[0] - square
        # 1e-6: the difference of two squares in float32 says no more
        return mean, np.sqrt(np.maximum(variance, np.float32(1e-6) * square) + np.float32(1e-8))


def scaled(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Observations [n, ...] shifted and scaled by the mean and deviation of each number, [width]."""
    shape = x.shape[x.dim() - _axes(x, len(mean)) :]
    return ((x - mean.view(shape)) / deviation.view(shape)).clamp(-MOST, MOST)


def _axes(x: Tensor, width: int) -> int:
    """How many of the last axes hold one observation."""
    axes, found = 0, 1
    while found < width:
        axes += 1
        found *= x.shape[-axes]
    return max(axes, 0)
