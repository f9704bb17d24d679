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

_NEVER = -1e9  # a logit of an action that is masked


class Actions:
    """The distributions of one action space.

    Args:
        space: Of actions.
        bounds: How an action of a bounded Box is kept within it: clip, as OpenAI baselines do, or squash, by tanh with
            the density that follows (Haarnoja et al. 2018, appendix C). -1 and 1 stand for the bounds either way, so
            that a network's first actions have the same part of any range.
    """

    def __init__(self, space: Space[Any], bounds: str = "clip") -> None:
        self.space = space
        self.continuous = isinstance(space, Box)
        self.squash = self.continuous and bounds == "squash"
        self._bounded = torch.zeros(0)
        if isinstance(space, Box):
            self._bounded = torch.from_numpy(np.isfinite(space.low) & np.isfinite(space.high)).reshape(-1)
        self._parts: list[int] = []
        if isinstance(space, Discrete):
            self._parts = [int(space.n)]
        elif isinstance(space, MultiDiscrete):
            self._parts = [int(n) for n in space.nvec.ravel()]

    def sample(self, parameters: Tensor, log_std: Tensor | None, mask: Tensor | None, greedy: bool) -> Tensor:
        """Actions as they are learnt from: [n], or [n, A]."""
        if self.continuous:
            assert log_std is not None
            return parameters if greedy else parameters + log_std.exp() * torch.randn_like(parameters)
        if isinstance(self.space, MultiBinary):
            parameters = _masked(parameters, mask)
            return ((parameters > 0) if greedy else (torch.rand_like(parameters) < parameters.sigmoid())).float()
        chosen = []
        for logits in self._split(_masked(parameters, mask)):
            # Gumbel's noise: the softmax's sample. It is finite, or it could lift what is masked.
            noise = 0.0 if greedy else -torch.empty_like(logits).exponential_().clamp_(min=1e-30).log_()
            chosen.append((logits + noise).argmax(-1))
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
                density = density - torch.where(self._bounded, change, 0.0)
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

    def to_env(self, actions: Tensor) -> npt.NDArray[Any]:
        """What the environments are given, [n, ...] of the space's shape and type."""
        array: npt.NDArray[Any] = actions.numpy()
        if isinstance(self.space, Box):
            array = array.reshape(-1, *self.space.shape)
            low, high = self.space.low, self.space.high
            bounded = self._bounded.numpy().reshape(low.shape)
            bottom, top = np.where(bounded, low, 0.0), np.where(bounded, high, 0.0)
            inner = np.tanh(array) if self.squash else np.clip(array, -1, 1)
            array = np.where(bounded, bottom + (inner + 1) * 0.5 * (top - bottom), array)
            bounded_array: npt.NDArray[Any] = np.clip(array, low, high).astype(self.space.dtype)
            return bounded_array
        if isinstance(self.space, Discrete):
            return array + int(self.space.start)
        chosen: npt.NDArray[Any] = array.reshape(-1, *(self.space.shape or ())).astype(self.space.dtype or np.int64)
        return chosen + self.space.start if isinstance(self.space, MultiDiscrete) else chosen

    def _split(self, parameters: Tensor) -> tuple[Tensor, ...]:
        return torch.split(parameters, self._parts, dim=-1)


def _masked(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else torch.where(mask, logits, _NEVER)
