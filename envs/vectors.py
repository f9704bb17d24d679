"""Environments whose id registers a vector implementation of its own with Gymnasium: all copies step at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import iterate

from hsa2c.envs.limit import Limit
from hsa2c.envs.making import maker
from hsa2c.envs.steps import MOST_FAULTS, Environments, EnvStep, Episode, check, whole
from hsa2c.errors import ProblemError

MakeAll = Callable[[], "gymnasium.vector.VectorEnv[Any, Any, Any]"]

_WORTHWHILE = 8  # copies: CartPole's takes as long for 1 as for 8, which are as long one after another


def make_all_of(env: Any, num_envs: int, **options: Any) -> MakeAll | None:
    """What makes all copies at once; None: nothing is registered, or it is not the same environment, or they are few.

    Args:
        env: As for `hsa2c.envs.making.maker`.
        num_envs: Copies.
        options: Keyword arguments of the environment.
    """
    if callable(env) or num_envs < _WORTHWHILE:
        return None
    make = maker(env, **options)
    if gymnasium.spec(env.rpartition(":")[2]).vector_entry_point is None:
        return None

    def make_all() -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        return gymnasium.make_vec(env, num_envs, vectorization_mode="vector_entry_point", **options)

    try:
        one, all_of_them = make(), make_all()
    except Exception:  # it has other options, or needs what is not installed
        return None
    same = one.observation_space == all_of_them.single_observation_space
    same = same and one.action_space == all_of_them.single_action_space
    one.close()
    all_of_them.close()
    return make_all if same and all_of_them.metadata.get("autoreset_mode") is AutoresetMode.NEXT_STEP else None


class VectorEnvs(Environments):
    """As `hsa2c.envs.episodes.Envs`; but a fault costs the episodes of all copies, which are made anew together.

    Args:
        make_all: Makes all copies, which begin an episode anew with the step after its end.
        seed: They begin with it.
        step_limit_s: Seconds that one step or reset of all may take; None: as long as they like.
        name: What they are called where they fail.
    """

    def __init__(
        self, make_all: MakeAll, *, seed: int, step_limit_s: float | None = None, name: str = "environment"
    ) -> None:
        self._make_all, self.name, self._seed = make_all, name, seed
        self._env = make_all()
        self._limit = Limit(step_limit_s)
        self.observation_space: Space[Any] = self._env.single_observation_space
        self.action_space: Space[Any] = self._env.single_action_space
        self.faults, self.last_fault = 0, ""
        self._in_a_row = 0

    @property
    def num_envs(self) -> int:
        """Copies."""
        return self._env.num_envs

    def reset(self) -> tuple[Any, list[Any]]:
        """Begin an episode everywhere: the observations and masks of each."""
        self._over = np.zeros(self.num_envs, bool)
        self._scores, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, int)
        self._limit.arm()
        try:
            with self._limit:
                observations, info = self._env.reset(seed=self._seed)
            return self._checked(observations, np.zeros(0)), self._masks(info)
        except (Exception, SystemExit) as error:
            return self._replace(error)

    def step(self, actions: npt.NDArray[Any]) -> EnvStep:
        """Take one action in every environment; [num_envs, ...]."""
        self._limit.arm()
        try:
            with self._limit:
                observations, gave, terminated, truncated, info = self._env.step(actions)
            valid = ~self._over
            rewards = np.where(valid, gave, 0.0).astype(np.float32)
            seen = self._checked(observations, rewards)
            terminated = np.asarray(terminated, bool) & valid
            truncated = np.asarray(truncated, bool) & valid & ~terminated
        except (Exception, SystemExit) as error:
            seen, masks = self._replace(error)
            no = np.zeros(self.num_envs, bool)
            return EnvStep(seen, masks, np.zeros(self.num_envs, np.float32), no, no, no, ())
        self._in_a_row = 0
        self._scores += rewards
        self._lengths += valid
        self._over = terminated | truncated
        ended = np.flatnonzero(self._over)
        episodes = tuple(Episode(float(self._scores[i]), int(self._lengths[i])) for i in ended)
        self._scores[ended] = self._lengths[ended] = 0
        return EnvStep(seen, self._masks(info), rewards, terminated, truncated, valid, episodes)

    def close(self) -> None:
        """Close them; what fails to is let go."""
        self._limit.disarm()
        with contextlib.suppress(Exception):
            self._env.close()

    def _checked(self, observations: Any, rewards: npt.NDArray[Any]) -> Any:
        """One of each; raises ValueError as `check`."""
        together = whole(self.observation_space, observations)
        if not np.isfinite(rewards).all():
            raise ValueError(f"rewards {rewards} are not finite")
        if together is not None and len(together) == self.num_envs:
            return together
        seen = list(iterate(self._env.observation_space, observations))
        for i, observation in enumerate(seen):
            check(self.observation_space, observation, where=f"observation of copy {i}")
        return seen

    def _masks(self, info: dict[str, Any]) -> list[Any]:
        masks = info.get("action_mask")
        if masks is None:
            return [None] * self.num_envs
        said = info.get("_action_mask", np.ones(self.num_envs, bool))
        return [mask if there else None for mask, there in zip(masks, said, strict=True)]

    def _replace(self, error: BaseException) -> tuple[Any, list[Any]]:
        """Make all anew, and begin an episode in each.

        Raises:
            ProblemError: They fail again and again.
        """
        self.faults += 1
        self._in_a_row += 1
        where = f"{self.name}, all {self.num_envs} copies"
        self.last_fault = f"{where}: {type(error).__name__}: {error}"
        if self._in_a_row >= MOST_FAULTS:
            raise ProblemError(f"{MOST_FAULTS} faults in a row; {self.last_fault}")
        with contextlib.suppress(Exception):
            self._env.close()
        self._seed += self.num_envs
        try:
            with self._limit:
                self._env = self._make_all()
        except (Exception, SystemExit) as again:
            raise ProblemError(f"{where}: cannot be made anew: {type(again).__name__}: {again}") from error
        return self.reset()
