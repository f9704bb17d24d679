"""Playing: t_max steps of several environments with the present weights, written into arrays that are used again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hsa2c.agents.fast_network import FastActorCritic, Features, Levels
from hsa2c.agents.losses import action_log_prob
from hsa2c.agents.policy import gumbel_noise
from hsa2c.agents.returns import Bools, Floats
from hsa2c.agents.settings import OBSERVATION_SHAPE


class GameResult(Protocol):
    """A whole game that ended."""

    @property
    def score(self) -> float:
        """Unclipped return."""

    @property
    def frames(self) -> int:
        """Length in emulator frames."""


class Step(Protocol):
    """What one step of all environments gave; arrays are [num_envs]."""

    @property
    def obs(self) -> NDArray[np.uint8]:
        """[num_envs, 4, 84, 84]."""

    @property
    def reward(self) -> Floats:
        """As the agent learns from it."""

    @property
    def terminated(self) -> Bools:
        """The episode ended by the game's rules."""

    @property
    def truncated(self) -> Bools:
        """The episode ended by a limit."""

    @property
    def valid(self) -> Bools:
        """False where the action was ignored: the step was a reset."""

    @property
    def games(self) -> Sequence[GameResult]:
        """Whole games that ended in this step."""


class Environments(Protocol):
    """Several environments that step together."""

    num_envs: int

    def reset(self) -> NDArray[np.uint8]:
        """Start all anew; observations uint8 [num_envs, 4, 84, 84]."""

    def step(self, actions: NDArray[np.int64]) -> Step:
        """Play one action in each."""

    def close(self) -> None:
        """End the emulators."""


@dataclass(kw_only=True)
class Rollout:
    """t_max steps of num_envs environments; arrays are [t_max, num_envs] unless said otherwise."""

    observations: NDArray[np.uint8]
    """Before each step, and after the last one: [t_max + 1, num_envs, 4, 84, 84]."""
    actions: NDArray[np.int64]
    log_probs: Floats
    """log pi(action) of the policy that acted."""
    values: Floats
    """V of the state before each step."""
    rewards: Floats
    terminated: Bools
    truncated: Bools
    valid: Bools
    """See `hsa2c.agents.returns`."""
    bootstrap_value: Floats
    """V of the state after the last step, [num_envs]."""
    levels: list[Levels]
    """Of the observations of each step; t_max of them once it was played."""
    features: list[Features]
    """The same, with the weights that acted; none where the player does not keep them."""


def empty_rollout(t_max: int, num_envs: int) -> Rollout:
    """Arrays for a rollout, not filled."""
    shape = (t_max, num_envs)
    return Rollout(
        observations=np.empty((t_max + 1, num_envs, *OBSERVATION_SHAPE), dtype=np.uint8),
        actions=np.empty(shape, dtype=np.int64),
        log_probs=np.empty(shape, dtype=np.float32),
        values=np.empty(shape, dtype=np.float32),
        rewards=np.empty(shape, dtype=np.float32),
        terminated=np.empty(shape, dtype=np.bool_),
        truncated=np.empty(shape, dtype=np.bool_),
        valid=np.empty(shape, dtype=np.bool_),
        bootstrap_value=np.empty(num_envs, dtype=np.float32),
        levels=[],
        features=[],
    )


class Player:
    """Plays environments from where the last rollout ended, or was interrupted.

    Args:
        environments: What is played.
        network: Whose weights act; they may change between two rollouts.
        t_max: Length of a rollout, agent steps.
        num_actions: Of the game.
        seed: Of the sampling of actions.
        keep_features: Whether the rollout has the features of its steps: 3 to 5 times the memory of the observations.

    Attributes:
        network: See above.
        rollout: The last one; overwritten by the next.
        games: Whole games that ended since this list was last emptied.
        agent_steps: Actions taken so far; the ignored ones of resets do not count.
        emulator_s: Seconds spent in the environments so far.
        acting_s: Seconds spent choosing actions so far.
    """

    def __init__(
        self,
        environments: Environments,
        network: FastActorCritic,
        *,
        t_max: int,
        num_actions: int,
        seed: int,
        keep_features: bool = False,
    ) -> None:
        self._environments = environments
        self.network = network
        self._keep_features = keep_features
        self._generator = torch.Generator().manual_seed(seed)
        self._logits = torch.empty(t_max, environments.num_envs, num_actions)
        self.rollout = empty_rollout(t_max, environments.num_envs)
        self.rollout.observations[-1] = environments.reset()
        self.games: list[GameResult] = []
        self.agent_steps = 0
        self.emulator_s = 0.0
        self.acting_s = 0.0

    def play(self, interrupted: Callable[[], bool]) -> Rollout | None:
        """The next rollout; None if interrupted on the way."""
        rollout = self.rollout
        rollout.observations[0] = rollout.observations[-1]
        rollout.levels.clear()
        rollout.features.clear()
        noise = gumbel_noise(tuple(self._logits.shape), self._generator)
        for t in range(len(rollout.actions)):
            if interrupted():
                rollout.observations[-1] = rollout.observations[t]  # where the next one would begin
                return None
            self._step(t, noise[t])
        begin = time.perf_counter()
        _, values = self.network(torch.from_numpy(rollout.observations[-1]))
        rollout.bootstrap_value[:] = values.numpy()
        rollout.log_probs[:] = action_log_prob(self._logits, torch.from_numpy(rollout.actions)).numpy()
        self.acting_s += time.perf_counter() - begin
        return rollout

    def _step(self, t: int, noise: torch.Tensor) -> None:
        rollout = self.rollout
        begin = time.perf_counter()
        features = self.network.features(torch.from_numpy(rollout.observations[t]))
        logits, values, _ = self.network.heads(features)
        self._logits[t] = logits
        rollout.levels.append(Levels(features.zero, features.scale))
        if self._keep_features:
            rollout.features.append(features)
        rollout.actions[t] = (logits + noise).argmax(dim=1).numpy()
        rollout.values[t] = values.numpy()
        acted = time.perf_counter()
        step = self._environments.step(rollout.actions[t])
        rollout.observations[t + 1] = step.obs
        rollout.rewards[t] = step.reward
        rollout.terminated[t] = step.terminated
        rollout.truncated[t] = step.truncated
        rollout.valid[t] = step.valid
        self.games.extend(step.games)
        self.agent_steps += int(np.count_nonzero(step.valid))
        self.acting_s += acted - begin
        self.emulator_s += time.perf_counter() - acted
