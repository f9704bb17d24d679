"""Distributions over actions: what a network's numbers mean, for any action space.

All work on batches: `parameters` is float32 [n, P] with P = `hsa2c.agents.gym.spaces.action_parameters`; actions are
[n] or [n, A]; log-probabilities and entropies are [n].
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from torch import Tensor
from torch.nn import functional

from hsa2c.agents.gym.spaces import action_parameters

NEVER = -1e9
"""A logit of an action that is masked."""


class Actions:
    """The distributions of one action space.

    Args:
        space: Of actions.
        bounds: How an action of a bounded Box is kept within it: clip, as OpenAI baselines do, or squash, by tanh with
            the density that follows (Haarnoja et al. 2018, appendix C). -1 and 1 stand for the bounds either way, so
            that a network's first actions have the same part of any range.

    Attributes:
        continuous: Actions are numbers.
        squash: They are squashed.
        bounded: Of numbers, bool [A]: which of them have two bounds.
        parts: Of choices, from how many each is.
    """

    def __init__(self, space: Space[Any], bounds: str = "clip") -> None:
        self.space = space
        self.continuous = isinstance(space, Box)
        self.squash = self.continuous and bounds == "squash"
        self.bounded: npt.NDArray[np.bool_] = np.zeros(0, bool)
        if isinstance(space, Box):
            self.bounded = (np.isfinite(space.low) & np.isfinite(space.high)).reshape(-1)
        self.parts: list[int] = []
        if isinstance(space, Discrete):
            self.parts = [int(space.n)]
        elif isinstance(space, MultiDiscrete):
            self.parts = [int(n) for n in space.nvec.ravel()]

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Room for so many actions, as they are learnt from."""
        if isinstance(self.space, Discrete):
            return torch.zeros(shape, dtype=torch.int64)
        if isinstance(self.space, MultiDiscrete):
            return torch.zeros((*shape, len(self.parts)), dtype=torch.int64)
        return torch.zeros(*shape, action_parameters(self.space))

    def noise(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """What makes samples of a policy's numbers, of their shape; finite, or it could lift what is masked."""
        if self.continuous:
            return torch.randn(shape).numpy()
        if isinstance(self.space, MultiBinary):
            return torch.rand(shape).logit_(eps=1e-7).numpy()
        return torch.empty(shape).exponential_().clamp_(min=1e-30).log_().neg_().numpy()  # Gumbel's

    def choose(
        self,
        parameters: npt.NDArray[np.float32],
        log_std: npt.NDArray[np.float32] | None,
        mask: npt.NDArray[np.bool_] | None,
        noise: npt.NDArray[np.float32],
    ) -> npt.NDArray[Any]:
        """Samples of actions as they are learnt from: [n], or [n, A]."""
        if self.continuous:
            assert log_std is not None
            return parameters + np.exp(log_std) * noise
        if mask is not None:
            parameters = np.where(mask, parameters, np.float32(NEVER))
        parameters = parameters + noise
        if isinstance(self.space, MultiBinary):
            return (parameters > 0).astype(np.float32)
        if isinstance(self.space, Discrete):
            chosen: npt.NDArray[np.int64] = parameters.argmax(1)
            return chosen
        ends = np.cumsum(self.parts)
        return np.stack([parameters[:, end - n : end].argmax(1) for n, end in zip(self.parts, ends, strict=True)], 1)

    def sample(self, parameters: Tensor, log_std: Tensor | None, mask: Tensor | None, greedy: bool) -> Tensor:
        """Actions as they are learnt from, samples or the likeliest: [n], or [n, A]."""
        if not greedy:
            std, there = (None if x is None else x.detach().numpy() for x in (log_std, mask))
            noise = self.noise(tuple(parameters.shape))
            return torch.from_numpy(self.choose(parameters.numpy(), std, there, noise))
        if self.continuous:
            return parameters
        parameters = _masked(parameters, mask)
        if isinstance(self.space, MultiBinary):
            return (parameters > 0).float()
        chosen = [logits.argmax(-1) for logits in self._split(parameters)]
        return chosen[0] if isinstance(self.space, Discrete) else torch.stack(chosen, -1)

    def evaluate(
        self, parameters: Tensor, log_std: Tensor | None, mask: Tensor | None, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of actions, and entropies, [n] each, in nats."""
        if self.continuous:
            assert log_std is not None
            z = (actions - parameters) / log_std.exp()
            density = -0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)
            if self.squash:  # of tanh(action)
                change = 2 * (math.log(2) - actions - functional.softplus(-2 * actions))
                density = density - torch.where(torch.from_numpy(self.bounded), change, 0.0)
            entropy = (log_std + 0.5 * math.log(2 * math.pi * math.e)).expand_as(parameters)
            return density.sum(-1), entropy.sum(-1)
        if isinstance(self.space, MultiBinary):
            parameters = _masked(parameters, mask)
            log_p = -functional.binary_cross_entropy_with_logits(parameters, actions, reduction="none")
            entropy = functional.binary_cross_entropy_with_logits(parameters, parameters.sigmoid(), reduction="none")
            return log_p.sum(-1), entropy.sum(-1)
        columns = actions.unsqueeze(-1) if isinstance(self.space, Discrete) else actions
        log_p = parameters.new_zeros(len(parameters))
        entropy = parameters.new_zeros(len(parameters))
        for logits, column in zip(self._split(_masked(parameters, mask)), columns.unbind(-1), strict=True):
            log_softmax = logits.log_softmax(-1)
            log_p = log_p + log_softmax.gather(-1, column.unsqueeze(-1)).squeeze(-1)
            entropy = entropy - (log_softmax.exp() * log_softmax).sum(-1)
        return log_p, entropy

    def to_env(self, actions: Any) -> npt.NDArray[Any]:
        """What the environments are given, [n, ...] of the space's shape and type; a tensor or array as `sample`'s."""
        array: npt.NDArray[Any] = np.asarray(actions)
        if isinstance(self.space, Discrete):
            return array + int(self.space.start)
        array = array.reshape(-1, *(self.space.shape or ()))
        if isinstance(self.space, Box):
            low, high = self.space.low, self.space.high
            bounded = self.bounded.reshape(low.shape)
            bottom, top = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
            inner = np.tanh(array) if self.squash else np.minimum(np.maximum(array, -1), 1)
            array = np.where(bounded, bottom + (inner + 1) * 0.5 * (top - bottom), array)
            within: npt.NDArray[Any] = np.minimum(np.maximum(array, low), high).astype(self.space.dtype)
            return within
        array = array.astype(self.space.dtype or np.int64)
        return array + self.space.start if isinstance(self.space, MultiDiscrete) else array

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        return torch.split(parameters, self.parts, dim=-1)


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else torch.where(mask, logits, NEVER)
