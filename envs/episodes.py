"""Any Gymnasium environment, several copies side by side: from an id, or from a function that makes one.

An episode that has ended stays on its last observation. The next action in that environment is ignored, the step is not
`valid`, and its observation is the first of a new episode ("next-step" autoreset), as with `hsa2c.envs.atari`.

An environment that raises, takes longer than a limit for one step, or gives what is not in its space costs its episode:
it is made anew, and counted. One that hangs in native code is not noticed: Python is not asked meanwhile. One that ends
its process is made anew with that, by who keeps the processes.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Space

from hsa2c.envs.limit import Limit
from hsa2c.envs.making import Make
from hsa2c.envs.steps import (
    EPISODES,
    MOST_FAULTS,
    Environments,
    EnvStep,
    Episode,
    begun,
    check,
    one_line,
    stepped,
    whole,
)
from hsa2c.errors import ProblemError


class _Took(NamedTuple):
    """What came of a step, by environment."""

    observations: list[Any]
    masks: list[Any]
    rewards: list[float]
    ends: list[tuple[bool, bool, bool]]
    """terminated, truncated, valid."""


_NOTHING = (False, False, False)


class Envs(Environments):
    """Several copies of an environment.

    Args:
        make: Makes one.
        num_envs: Copies.
        seed: Copy i begins with seed + i.
        step_limit_s: Seconds that one step or reset may take; None: as long as it likes.
        name: What it is called where it fails.

    Attributes:
        name: As it was given.
        observation_space: Of one.
        action_space: Of one.
        faults: Environments that were made anew, since the last look.
        last_fault: Of these the last, in words.
    """

    def __init__(
        self, make: Make, num_envs: int, *, seed: int, step_limit_s: float | None = None, name: str = "environment"
    ) -> None:
        self._make, self.name = make, name
        self._limit = Limit(step_limit_s)
        self._envs = []
        for _ in range(num_envs):
            self._limit.arm()
            with self._limit:
                self._envs.append(make())
        self._seed = seed
        self.observation_space: Space[Any] = self._envs[0].observation_space
        self.action_space: Space[Any] = self._envs[0].action_space
        self.faults, self.last_fault = 0, ""
        self._failed: deque[bool] = deque(maxlen=EPISODES)  # of the last episodes, of all copies
        self._over = [True] * num_envs
        self._scores, self._lengths = [0.0] * num_envs, [0] * num_envs

    @property
    def num_envs(self) -> int:
        """Copies."""
        return len(self._envs)

    def reset(self) -> tuple[list[Any], list[Any]]:
        """Begin an episode everywhere: the observations and masks of each."""
        self._limit.arm()
        begun = [self._begin(i, seed=self._seed + i) for i in range(self.num_envs)]
        return [observation for observation, _ in begun], [mask for _, mask in begun]

    def step(self, actions: npt.NDArray[Any]) -> EnvStep:
        """Take one action in every environment; [num_envs, ...]."""
        n = self.num_envs
        took = _Took([None] * n, [None] * n, [0.0] * n, [_NOTHING] * n)
        self._limit.arm()
        for i, env in enumerate(self._envs):
            if self._over[i]:
                took.observations[i], took.masks[i] = self._begin(i)
                continue
            try:
                with self._limit:
                    gave = env.step(actions[i])
                took.observations[i], took.rewards[i], terminated, truncated, info = stepped(gave)
                took.masks[i] = info.get("action_mask")
                took.ends[i] = terminated, truncated and not terminated, True
            except (Exception, SystemExit) as error:
                took.rewards[i] = 0.0
                took.observations[i], took.masks[i] = self._replace(i, error)
        observations = self._checked(took)
        ends = np.array(took.ends, bool).T
        rewards = np.array(took.rewards, np.float32)
        return EnvStep(observations, took.masks, rewards, ends[0], ends[1], ends[2], self._count(took))

    def _checked(self, took: _Took) -> list[Any] | npt.NDArray[Any]:
        """The observations of all; one that no network can be given, or a reward, costs its environment."""
        together = whole(self.observation_space, took.observations)
        if together is not None and math.isfinite(sum(took.rewards)):
            return together
        for i, (_, _, valid) in enumerate(took.ends):
            try:
                if valid:
                    check(self.observation_space, took.observations[i], took.rewards[i])
            except Exception as error:
                took.observations[i], took.masks[i] = self._replace(i, error)
                took.rewards[i], took.ends[i] = 0.0, _NOTHING
        together = whole(self.observation_space, took.observations)
        return took.observations if together is None else together

    def _count(self, took: _Took) -> tuple[Episode, ...]:
        """The episodes that have ended."""
        episodes = []
        for i, (terminated, truncated, valid) in enumerate(took.ends):
            if valid:
                self._scores[i] += took.rewards[i]
                self._lengths[i] += 1
            if terminated or truncated:
                self._over[i] = True
                self._failed.append(False)
                episodes.append(Episode(self._scores[i], self._lengths[i]))
        return tuple(episodes)

    def close(self) -> None:
        """Close all; one that fails to is let go."""
        self._limit.disarm()
        for env in self._envs:
            with contextlib.suppress(Exception):
                env.close()

    def _begin(self, i: int, seed: int | None = None) -> tuple[Any, Any]:
        self._scores[i], self._lengths[i] = 0.0, 0
        try:
            with self._limit:
                gave = self._envs[i].reset(seed=seed)
            observation, info = begun(gave)
            check(self.observation_space, observation)
            mask = info.get("action_mask")
        except (Exception, SystemExit) as error:
            return self._replace(i, error)
        self._over[i] = False
        return observation, mask

    def _replace(self, i: int, error: BaseException) -> tuple[Any, Any]:
        """Make an environment anew that has failed, and begin an episode there.

        Raises:
            ProblemError: Half of the last episodes failed, or it cannot be made.
        """
        self.faults += 1
        self._failed.append(True)
        where = f"{self.name}, copy {i}"
        self.last_fault = f"{where}, after {self._lengths[i]} steps: {type(error).__name__}: {one_line(error)}"
        if sum(self._failed) >= MOST_FAULTS:
            raise ProblemError(f"{MOST_FAULTS} of the last {len(self._failed)} episodes failed; {self.last_fault}")
        with contextlib.suppress(Exception):
            self._envs[i].close()
        self._seed += self.num_envs
        try:
            with self._limit:
                self._envs[i] = self._make()
        except (Exception, SystemExit) as again:
            raise ProblemError(f"{where}: cannot be made anew: {type(again).__name__}: {one_line(again)}") from error
        return self._begin(i, seed=self._seed + i)
