"""Play: a rollout of several environments, as arrays, by the policy at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Dict
from numpy.typing import NDArray
from torch import Tensor

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.mlp import MLP
from hsa2c.agents.gym.networks import Agent, State, to_tensors
from hsa2c.agents.gym.spaces import Arrays, action_parameters, check_mask, empty, leaves, take
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.envs.steps import Environments, Episode
from hsa2c.errors import ProblemError


class Rollout:
    """t_max steps of num_envs environments: [t_max, num_envs]; observations, starts and values have one more."""

    def __init__(self, envs: Environments, agent: Agent, actions: Actions, t_max: int) -> None:
        n, P = envs.num_envs, action_parameters(envs.action_space)
        self.observations: Arrays = empty(leaves(envs.observation_space), (t_max + 1, n))
        self.masks: NDArray[np.bool_] | None = None
        self.parameters = np.zeros((t_max, n, P), np.float32)
        """Numbers of the policy that played."""
        self.actions = actions.empty((t_max, n))
        self.log_p = torch.zeros(t_max, n)
        self.values = torch.zeros(t_max + 1, n)
        self.rewards = np.zeros((t_max, n), np.float32)
        self.terminated, self.truncated, self.valid = (np.zeros((t_max, n), bool) for _ in range(3))
        self.starts = np.zeros((t_max + 1, n), bool)
        self.state: State = agent.begin(n)
        """Of a recurrent core, before the first step."""
        self.sums = np.zeros((t_max, n), np.float32)
        """Discounted sums of rewards so far in their episodes: whose deviation rewards are divided by."""

    def begin_at(self, t: int) -> None:
        """Let the next one go on from here."""
        for array in (*self.observations.values(), self.starts, *(() if self.masks is None else (self.masks,))):
            array[0] = array[t]


class Player:
    """Plays on from where the last rollout has ended.

    Args:
        envs: What is played.
        agent: The network, whose weights somebody else sets.
        actions: The distributions of actions.
        statistics: What observations are normalised by.
        t_max: Length of a rollout.
        discount: gamma.
        mlp: The agent's towers in numpy, where it has some: they act in its place.
    """

    def __init__(
        self,
        envs: Environments,
        agent: Agent,
        actions: Actions,
        statistics: Statistics,
        *,
        t_max: int,
        discount: float,
        mlp: MLP | None = None,
    ) -> None:
        self.rollout = Rollout(envs, agent, actions, t_max)
        self.episodes: list[Episode] = []
        self.agent_steps = 0
        self._envs, self._agent, self._actions, self._statistics, self._mlp = envs, agent, actions, statistics, mlp
        self._paths = list(self.rollout.observations)
        self._t_max, self._discount = t_max, discount
        observations, masks = envs.reset()
        self._put(0, observations, masks, np.zeros(envs.num_envs, bool))
        self.rollout.starts[0] = True
        self._state = agent.begin(envs.num_envs)
        self._sum = np.zeros(envs.num_envs, np.float32)
        self._at_end = False

    @torch.no_grad()
    def play(self, tail: Tensor, interrupted: Callable[[], bool]) -> Rollout | None:
        """The next rollout; None if interrupted, and what was played is kept for the next one."""
        r = self.rollout
        if self._at_end:
            r.begin_at(self._t_max)
        r.state = self._state
        noise = self._actions.noise(r.parameters.shape)
        log_std = None if self._agent.log_std is None else self._agent.log_std.numpy()
        act = self._torch(tail) if self._mlp is None else self._numpy(self._mlp, tail)
        taken = r.actions.numpy()
        self._at_end = False
        for t in range(self._t_max):
            if interrupted():
                r.begin_at(t)
                return None
            r.parameters[t] = act(t)
            mask = None if r.masks is None else r.masks[t]
            taken[t] = self._actions.choose(r.parameters[t], log_std, mask, noise[t])
            self._step(t, self._actions.to_env(taken[t]))
        act(self._t_max)
        self._at_end = True
        self._evaluate()
        return r

    def _torch(self, tail: Tensor) -> Callable[[int], NDArray[np.float32]]:
        """The numbers of the policy at each step in turn, by the network; its values go into the rollout."""
        r = self.rollout

        def act(t: int) -> NDArray[np.float32]:
            at = to_tensors({path: array[t] for path, array in r.observations.items()})
            seen = {path: self._statistics.normalise(tail, path, x) for path, x in at.items()}
            parameters, r.values[t], state = self._agent(seen, self._state, torch.from_numpy(r.starts[t]))
            if t < self._t_max:  # the last observation is the first of the next rollout
                self._state = state
            numbers: NDArray[np.float32] = parameters.numpy()
            return numbers

        return act

    def _numpy(self, mlp: MLP, tail: Tensor) -> Callable[[int], NDArray[np.float32]]:
        """The same in numpy; the values of all steps come at the end, for the weights stay the same."""
        r = self.rollout
        mlp.read(tail)
        seen = np.zeros((*r.starts.shape, mlp.size), np.float32)

        def act(t: int) -> NDArray[np.float32]:
            seen[t] = mlp.see({path: array[t] for path, array in r.observations.items()})
            if t == self._t_max:
                r.values.copy_(torch.from_numpy(mlp.value(seen.reshape(-1, mlp.size))).view_as(r.values))
            return mlp.policy(seen[t])

        return act

    def _step(self, t: int, actions: NDArray[Any]) -> None:
        r = self.rollout
        step = self._envs.step(actions)
        r.rewards[t], r.terminated[t], r.truncated[t], r.valid[t] = step[2:6]
        if self._statistics.rewards:
            self._sum = r.sums[t] = (self._discount * self._sum + step.rewards) * step.valid
            self._sum[step.terminated | step.truncated] = 0.0
        np.logical_not(step.valid, out=r.starts[t + 1])
        self._put(t + 1, step.observations, step.masks, step.terminated | step.truncated)
        self.episodes += step.episodes
        self.agent_steps += int(np.count_nonzero(step.valid))

    def _evaluate(self) -> None:
        """Log-probabilities of all actions, by the policy that played."""
        r = self.rollout
        masks = None if r.masks is None else torch.from_numpy(r.masks[:-1]).flatten(0, 1)
        parameters, actions = torch.from_numpy(r.parameters).flatten(0, 1), r.actions.flatten(0, 1)
        log_p, _ = self._actions.evaluate(parameters, self._agent.log_std, masks, actions)
        r.log_p.copy_(log_p.view_as(r.log_p))

    def _put(
        self, t: int, observations: Sequence[Any] | NDArray[Any], masks: Sequence[Any], ended: NDArray[np.bool_]
    ) -> None:
        r, space = self.rollout, self._envs.observation_space
        if isinstance(observations, np.ndarray):
            r.observations[self._paths[0]][t] = observations
        else:
            for i, observation in enumerate(observations):
                for path, part in zip(self._paths, take(observation, space), strict=True):
                    r.observations[path][t, i] = part
        if r.masks is None and not isinstance(space, Dict) and not any(mask is not None for mask in masks):
            return
        try:
            there = zip(observations, masks, ended, strict=True)
            self._put_masks(t, [check_mask(x, mask, self._envs.action_space, ended=end) for x, mask, end in there])
        except ValueError as error:
            raise ProblemError(f"{self._envs.name}: {error}") from None

    def _put_masks(self, t: int, masks: Sequence[NDArray[np.bool_] | None]) -> None:
        r, P = self.rollout, self.rollout.parameters.shape[-1]
        for i, mask in enumerate(masks):
            if mask is not None and r.masks is None:
                r.masks = np.ones((*r.starts.shape, P), bool)
            if r.masks is not None:
                r.masks[t, i] = True if mask is None else mask
