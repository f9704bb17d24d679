"""Play: a rollout of several environments, as arrays, by the policy at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.networks import Agent, State, to_tensors
from hsa2c.agents.gym.spaces import Arrays, empty, leaves, mask_of, take
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.envs.episodes import Envs, Episode
from hsa2c.errors import ProblemError


class Rollout:
    """t_max steps of num_envs environments: [t_max, num_envs]; observations and starts have one more."""

    def __init__(self, envs: Envs, agent: Agent, t_max: int, parameters: int) -> None:
        n = envs.num_envs
        self.observations: Arrays = empty(leaves(envs.observation_space), (t_max + 1, n))
        self.masks: NDArray[np.bool_] | None = None
        self.parameters = parameters
        self.actions: Tensor | None = None
        self.log_p = torch.zeros(t_max, n)
        self.values = torch.zeros(t_max + 1, n)
        self.rewards = np.zeros((t_max, n), np.float32)
        self.terminated, self.truncated, self.valid = (np.zeros((t_max, n), bool) for _ in range(3))
        self.starts = np.zeros((t_max + 1, n), bool)
        self.state: State = agent.begin(n)
        """Of a recurrent core, before the first step."""
        self.sums = np.zeros((t_max, n), np.float32)
        """Discounted sums of rewards so far in their episodes: whose deviation rewards are divided by."""


class Player:
    """Plays on from where the last rollout has ended.

    Args:
        envs: What is played.
        agent: The network, whose weights somebody else sets.
        actions: The distributions of actions.
        statistics: What observations are normalised by.
        t_max: Length of a rollout.
        discount: gamma.
        parameters: Numbers of the policy, P.
    """

    def __init__(
        self,
        envs: Envs,
        agent: Agent,
        actions: Actions,
        statistics: Statistics,
        *,
        t_max: int,
        discount: float,
        parameters: int,
    ) -> None:
        self.rollout = Rollout(envs, agent, t_max, parameters)
        self.episodes: list[Episode] = []
        self.agent_steps = 0
        self._envs, self._agent, self._actions, self._statistics = envs, agent, actions, statistics
        self._paths = list(self.rollout.observations)
        self._t_max, self._discount = t_max, discount
        observations, masks = envs.reset()
        self._put(0, observations, masks)
        self.rollout.starts[0] = True
        self._state = agent.begin(envs.num_envs)
        self._sum = np.zeros(envs.num_envs, np.float32)
        self._at_end = False

    def play(self, tail: Tensor, interrupted: Callable[[], bool]) -> Rollout | None:
        """The next rollout; None if interrupted, and what was played is kept for the next one."""
        r = self.rollout
        if self._at_end:
            for array in (*r.observations.values(), r.starts, *(() if r.masks is None else (r.masks,))):
                array[0] = array[-1]
        r.state = self._state
        with torch.no_grad():
            for t in range(self._t_max):
                if interrupted():
                    for array in (*r.observations.values(), r.starts, *(() if r.masks is None else (r.masks,))):
                        array[0] = array[t]
                    self._at_end = False
                    return None
                self._step(t, tail)
            _, r.values[-1], _ = self._agent(self._seen(tail, self._t_max), self._state, torch.from_numpy(r.starts[-1]))
        self._at_end = True
        return r

    def _step(self, t: int, tail: Tensor) -> None:
        r = self.rollout
        starts = torch.from_numpy(r.starts[t])
        parameters, values, self._state = self._agent(self._seen(tail, t), self._state, starts)
        mask = None if r.masks is None else torch.from_numpy(r.masks[t])
        log_std = self._agent.log_std
        actions = self._actions.sample(parameters, log_std, mask, False)
        if r.actions is None:
            r.actions = torch.zeros((self._t_max, *actions.shape), dtype=actions.dtype)
        r.actions[t], r.values[t] = actions, values
        r.log_p[t] = self._actions.evaluate(parameters, log_std, mask, actions)[0]
        step = self._envs.step(self._actions.to_env(actions))
        r.rewards[t], r.terminated[t], r.truncated[t], r.valid[t] = (
            step.rewards,
            step.terminated,
            step.truncated,
            step.valid,
        )
        self._sum = np.where(step.valid, self._discount * self._sum + step.rewards, 0.0).astype(np.float32)
        r.sums[t] = self._sum
        self._sum = np.where(step.terminated | step.truncated, 0.0, self._sum).astype(np.float32)
        r.starts[t + 1] = ~step.valid
        self._put(t + 1, step.observations, step.masks)
        self.episodes += step.episodes
        self.agent_steps += int(step.valid.sum())

    def _seen(self, tail: Tensor, t: int) -> dict[str, Tensor]:
        at = to_tensors({path: array[t] for path, array in self.rollout.observations.items()})
        return {path: self._statistics.normalise(tail, path, x) for path, x in at.items()}

    def _put(self, t: int, observations: Sequence[Any], masks: Sequence[Any]) -> None:
        r = self.rollout
        for i, (observation, mask) in enumerate(zip(observations, masks, strict=True)):
            for path, part in zip(self._paths, take(observation, self._envs.observation_space), strict=True):
                r.observations[path][t, i] = part
            there = mask_of(observation, mask)
            if there is not None and (self._actions.continuous or len(there) != r.parameters):
                raise ProblemError(f"action_mask of {len(there)} numbers does not fit {self._envs.action_space}")
            if there is not None and r.masks is None:
                r.masks = np.ones((self._t_max + 1, len(observations), r.parameters), bool)
            if r.masks is not None:
                r.masks[t, i] = True if there is None else there
