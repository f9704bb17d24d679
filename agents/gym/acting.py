"""A trained agent that acts: for `hsa2c.load`, for evaluation and for videos."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Space
from torch import Tensor

from hsa2c.agents.evaluation import summarise
from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.networks import Agent, to_tensors
from hsa2c.agents.gym.spaces import check_mask, empty, leaves, take
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import bind, num_parameters
from hsa2c.dpsgd.protocols import Vector
from hsa2c.envs.episodes import Envs
from hsa2c.envs.making import Make
from hsa2c.envs.steps import check, whole
from hsa2c.errors import ConfigError

_MOST_ENVS = 16  # episodes played side by side
_IMAGES_PER_S = 30  # of a film, where the environment does not say


class Parts(NamedTuple):
    """What a policy is made of, for export."""

    agent: Agent
    actions: Actions
    observation_space: Space[Any]
    leaves: Mapping[str, Space[Any]]
    moments: Mapping[str, tuple[Tensor, Tensor] | None]
    """Mean and deviation of each leaf; None where it stays as it is."""
    greedy: bool


class AgentPolicy:
    """A function from an observation to an action; a recurrent one remembers until `reset`.

    Args:
        agent: The network; its parameters become copies of v's.
        v: float32 [dim].
        statistics: What observations are normalised by; it is the end of v.
        observation_space: Of one environment.
        action_space: Of one environment.
        bounds: See `Actions`.
        greedy: Take the likeliest action; otherwise sample.
        seed: Of the sampling.
    """

    def __init__(
        self,
        agent: Agent,
        v: Vector,
        statistics: Statistics,
        observation_space: Space[Any],
        action_space: Space[Any],
        *,
        bounds: str,
        greedy: bool,
        seed: int,
    ) -> None:
        flat = torch.from_numpy(v.copy())
        dim = num_parameters(agent)
        if len(v) != dim + statistics.size:
            raise ConfigError(
                f"the network has {dim + statistics.size} numbers, must have {len(v)} as the checkpoint has"
            )
        bind(agent, flat[:dim])
        self._agent, self._tail, self._statistics = agent.eval(), flat[dim:], statistics
        self._leaves = leaves(observation_space)
        self._actions, self._greedy = Actions(action_space, bounds), greedy
        self._space = observation_space
        torch.manual_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Begin new episodes: forget."""
        self._state: Any = None

    @property
    def parts(self) -> Parts:
        """What it is made of."""
        moments = {path: self._statistics.moments(self._tail, path) for path in self._leaves}
        return Parts(self._agent, self._actions, self._space, self._leaves, moments, self._greedy)

    def __call__(self, observation: Any, mask: Any = None) -> Any:
        """The action for one observation of the space."""
        return self.batch([observation], [mask])[0]

    @torch.inference_mode()
    def batch(self, observations: Sequence[Any], masks: Sequence[Any] | None = None, starts: Any = None) -> Any:
        """Actions for several environments, always as many until `reset`: [n, ...].

        Args:
            observations: One of each.
            masks: Which actions there are, in each; None: all, or as the observations say.
            starts: bool [n]: which of them have just begun an episode; None: none but the first time.

        Raises:
            ConfigError: An observation or a mask is not of its space, or it remembers another number of environments.
        """
        n = len(observations)
        self._check(observations)
        arrays = empty(self._leaves, (n,))
        for i, observation in enumerate(observations):
            for path, part in zip(self._leaves, take(observation, self._space), strict=True):
                arrays[path][i] = part
        seen = {path: self._statistics.normalise(self._tail, path, x) for path, x in to_tensors(arrays).items()}
        if self._state is None:
            self._state = self._agent.begin(n)
        if any(len(part) != n for part in self._state):
            raise ConfigError(f"{n} observations: must be {len(self._state[0])}, of which it remembers; or reset() it")
        begun = torch.zeros(n, dtype=torch.bool) if starts is None else torch.from_numpy(np.asarray(starts))
        parameters, _, self._state = self._agent(seen, self._state, begun)
        masks = [None] * n if masks is None else masks
        try:
            together = zip(observations, masks, strict=True)
            there = [check_mask(x, mask, self._actions.space, ended=True) for x, mask in together]
        except ValueError as error:
            raise ConfigError(str(error)) from None
        mask = None
        if any(one is not None for one in there):
            rows = [np.ones(parameters.shape[1], bool) if one is None else one for one in there]
            mask = torch.from_numpy(np.stack(rows))
        return self._actions.to_env(self._actions.sample(parameters, self._agent.log_std, mask, self._greedy))

    def _check(self, observations: Sequence[Any]) -> None:
        if whole(self._space, observations) is not None:
            return
        for observation in observations:
            try:
                check(self._space, observation)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise ConfigError(f"{type(error).__name__}: {error}; must be an observation of {self._space}") from None


def play(policy: AgentPolicy, make: Make, *, episodes: int, seed: int, **how: Any) -> dict[str, Any]:
    """Scores of whole episodes; episode k begins with seed + k.

    Args:
        policy: Who acts.
        make: Makes an environment.
        episodes: How many.
        seed: Of the first one.
        how: Of `Envs`: its limit and its name.
    """
    scores, steps = list[float](), 0
    for first in range(0, episodes, _MOST_ENVS):
        n = min(_MOST_ENVS, episodes - first)
        envs = Envs(make, n, seed=seed + first, **how)
        policy.reset()
        observations: Any
        observations, masks = envs.reset()
        found: dict[int, float] = {}
        starts = np.ones(n, bool)
        totals = np.zeros(n)
        while len(found) < n:
            steps += n - len(found)
            step = envs.step(policy.batch(observations, masks, starts))
            observations, masks, starts = step.observations, step.masks, ~step.valid
            totals[~step.valid] = 0.0  # also of an episode that a fault has cost
            for i in range(n):
                totals[i] += step.rewards[i] if i not in found else 0.0
                if i not in found and (step.terminated[i] or step.truncated[i]):
                    found[i] = float(totals[i])
        scores += [found[i] for i in range(n)]
        envs.close()
    result = summarise(scores, agent_steps=steps)
    told = {name: getattr(result, name) for name in ("mean", "median", "std", "min", "max")}
    return {**told, "episodes": episodes, "agent_steps": steps, "scores": scores}


def check_film(make: Make, path: Path, *, seed: int) -> None:
    """Find out before any playing whether `record` could do its work.

    Raises:
        ConfigError: The environment cannot be made so, or renders nothing; or as `hsa2c.envs.film.check_recordable`.
    """
    from hsa2c.envs.film import check_recordable

    check_recordable(path)
    _on_screen(make, path, seed)[0].close()


def record(policy: AgentPolicy, make: Make, path: Path, *, seed: int) -> float:
    """Write a film of an episode; gives back its score. The environment renders ``rgb_array``.

    Raises:
        ConfigError: As `check_film`.
        HSA2CError: The film cannot be written.
    """
    from hsa2c.envs.film import film

    policy.reset()
    env, observation, info, image = _on_screen(make, path, seed)
    score, over = 0.0, False
    with film(path, image, images_per_s=env.metadata.get("render_fps") or _IMAGES_PER_S) as write:
        while not over:
            step = env.step(policy(observation, info.get("action_mask")))
            observation, reward, terminated, truncated, info = step
            score, over = score + float(reward), bool(terminated or truncated)
            write(np.ascontiguousarray(env.render(), np.uint8))
    env.close()
    return score


def _on_screen(make: Make, path: Path, seed: int) -> tuple[Any, Any, Mapping[str, Any], Any]:
    """An environment at the start of an episode: itself, observation, info, picture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Gymnasium's, of what becomes a line here
            env = make()
        observation, info = env.reset(seed=seed)
        image: Any = env.render()
    except Exception as error:  # of the environment's, of any kind
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(f"video = {str(path)!r}: the environment does not render rgb_array: {why}") from None
    if not (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3):
        raise ConfigError(f"video = {str(path)!r}: the environment renders no picture, must render rgb_array")
    return env, observation, info, image
