"""An agent in any environment for `hsa2c.agents.export`: its network, with its normalisation, to the likeliest action.

Inputs are the leaves of the observation: "observation" where there is one. A mask is the last of them. What an LSTM
remembers is "hidden" and "cell", a GRU's "hidden".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from numpy.typing import NDArray
from torch import Tensor, nn

from hsa2c.agents import export as files
from hsa2c.agents.gym.acting import AgentPolicy
from hsa2c.agents.gym.networks import to_tensors
from hsa2c.agents.gym.spaces import MASK, empty, mask_of, take
from hsa2c.agents.gym.statistics import scaled
from hsa2c.errors import ConfigError

_CHECKED = 64  # random observations of each step
_STEPS = 8  # of a policy that remembers
_MEMORY = ("hidden", "cell")
_TAKEN = ("action", "parameters", MASK, *_MEMORY, *(f"next_{name}" for name in _MEMORY))


class GreedyPolicy(nn.Module):
    """Raw observations to the likeliest action and the distribution's parameters; made of what a policy is made of."""

    low: Tensor
    high: Tensor

    def __init__(self, policy: AgentPolicy) -> None:
        super().__init__()
        parts = policy.parts
        self.agent, self._actions, self._leaves = parts.agent, parts.actions, list(parts.leaves)
        space = parts.observation_space
        self.masked = isinstance(space, Dict) and MASK in space.spaces
        self.inputs = _names(parts.leaves) + [MASK] * self.masked
        for k, path in enumerate(self._leaves):
            mean, deviation = parts.moments[path] or (None, None)
            self.register_buffer(f"mean_{k}", mean)
            self.register_buffer(f"deviation_{k}", deviation)
        if isinstance(self._actions.space, Box):
            self.register_buffer("low", torch.from_numpy(self._actions.space.low))
            self.register_buffer("high", torch.from_numpy(self._actions.space.high))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Action [n, ...], parameters [n, P] and memory of leaves [n, ...], of a mask, bool [n, P], where they have
        one, and of memory.
        """
        inputs, memory = given[: len(self.inputs)], given[len(self.inputs) :]
        seen = {path: self._normalised(k, inputs[k]) for k, path in enumerate(self._leaves)}
        starts = torch.zeros_like(memory[0][:, 0], dtype=torch.bool) if memory else torch.zeros(0, dtype=torch.bool)
        parameters, _, after = self.agent(seen, memory, starts)
        mask = inputs[-1].reshape(parameters.shape).bool() if self.masked else None
        chosen = self._actions.sample(parameters, self.agent.log_std, mask, greedy=True)
        return self._to_env(chosen), parameters, *after

    def _normalised(self, k: int, x: Tensor) -> Tensor:
        mean = getattr(self, f"mean_{k}")
        return x if mean is None else scaled(x, mean, getattr(self, f"deviation_{k}"))

    def _to_env(self, actions: Tensor) -> Tensor:
        """As `Actions.to_env`, of tensors."""
        space = self._actions.space
        if isinstance(space, Discrete):
            return actions + int(space.start)
        shaped = actions.reshape(-1, *(space.shape or ()))
        if isinstance(space, MultiDiscrete):
            return shaped + torch.from_numpy(space.start)
        if not isinstance(space, Box):
            return shaped.long()
        bounded = self.low.isfinite() & self.high.isfinite()
        bottom, top = torch.where(bounded, self.low, 0.0), torch.where(bounded, self.high, 0.0)
        inner = shaped.tanh() if self._actions.squash else shaped.clamp(-1, 1)
        shaped = torch.where(bounded, bottom + (inner + 1) * 0.5 * (top - bottom), shaped)
        return torch.minimum(torch.maximum(shaped, self.low), self.high)


def _names(leaves: Iterable[str]) -> list[str]:
    """Of the inputs, each another than those of what comes beside them."""
    names: list[str] = []
    for path in leaves:
        name = path.replace(".", "_") or "observation"
        while name in (*names, *_TAKEN):
            name = f"observation_{name}"
        names.append(name)
    return names


def export(policy: AgentPolicy, path: Path) -> None:
    """Write a policy in the format of the file's ending; see `hsa2c.agents.export.export`.

    Args:
        policy: One that was loaded with ``greedy=True``.
        path: The file.

    Raises:
        ConfigError: It samples its actions, or as there.
    """
    files.check_format(path)
    if not policy.parts.greedy:
        raise ConfigError(f"{path}: the policy samples its actions, must be loaded with greedy=True")
    module = GreedyPolicy(policy).eval().requires_grad_(False)
    begin = [part.numpy() for part in policy.parts.agent.begin(_CHECKED)]
    policy.reset()
    policy.parts.observation_space.seed(1)
    steps, actions = zip(*(_step(policy) for _ in range(_STEPS if begin else 1)), strict=True)
    files.export(files.Exportable(module, module.inputs, _MEMORY[: len(begin)], begin, steps, actions), path)


def _step(policy: AgentPolicy) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Random observations, as the module takes them, and the policy's actions."""
    parts = policy.parts
    space = parts.observation_space
    observations = [space.sample() for _ in range(_CHECKED)]
    arrays = empty(parts.leaves, (_CHECKED,))
    for i, observation in enumerate(observations):
        for path, part in zip(parts.leaves, take(observation, space), strict=True):
            arrays[path][i] = part
    inputs = [x.numpy() for x in to_tensors(arrays).values()]
    masks = [mask for observation in observations if (mask := mask_of(observation, None)) is not None]
    if masks:
        inputs.append(np.stack(masks))
    return inputs, policy.batch(observations)
