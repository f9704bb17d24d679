"""What steps of several environments lead to, whoever has the environments, and what no network can be given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple

EPISODES, MOST_FAULTS = 40, 20
"""If so many of the last episodes failed, something is wrong for good."""


class Episode(NamedTuple):
    """One whole episode."""

    score: float
    """Sum of its rewards, as the environment gave them."""
    agent_steps: int


class EnvStep(NamedTuple):
    """What one action in each environment led to."""

    observations: list[Any] | npt.NDArray[Any]
    """One of each environment, at the end of an episode its last one; of a Box one array, [num_envs, ...]."""
    masks: list[Any]
    """``info["action_mask"]`` of each, None where it has none."""
    rewards: npt.NDArray[np.float32]
    """[num_envs]; 0 where not valid."""
    terminated: npt.NDArray[np.bool_]
    """[num_envs]: the episode ended by the environment's rules; nothing follows."""
    truncated: npt.NDArray[np.bool_]
    """[num_envs]: cut off by a limit; what would follow has a value. Never together with terminated."""
    valid: npt.NDArray[np.bool_]
    """[num_envs]: False where a new episode was started, also after a fault: nothing to learn from."""
    episodes: tuple[Episode, ...]
    """Those that ended in this step."""


class Environments(Protocol):
    """Several copies of an environment.

    Attributes:
        name: What they are called where they fail.
        observation_space: Of one.
        action_space: Of one.
        faults: Environments that were made anew, since the last look.
        last_fault: Of these the last, in words.
    """

    name: str
    observation_space: Space[Any]
    action_space: Space[Any]
    faults: int
    last_fault: str

    @property
    def num_envs(self) -> int: ...  # noqa: D102

    def reset(self) -> tuple[Any, list[Any]]: ...  # noqa: D102

    def step(self, actions: npt.NDArray[Any]) -> EnvStep: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


def begun(gave: Any) -> tuple[Any, Any]:
    """Observation and info, as `reset` gave them.

    Raises:
        ValueError: It gave something else.
    """
    if not isinstance(gave, tuple | list) or len(gave) != 2:
        raise ValueError(f"reset gives {_what(gave)}, must give 2: observation, info")
    return gave[0], gave[1]


def stepped(gave: Any) -> tuple[Any, float, bool, bool, Any]:
    """Observation, reward, terminated, truncated and info, as `step` gave them.

    Raises:
        ValueError: It gave something else.
    """
    if not isinstance(gave, tuple | list) or len(gave) != 5:
        must = "must give 5: observation, reward, terminated, truncated, info"
        raise ValueError(f"step gives {_what(gave)}, {must}")
    observation, reward, terminated, truncated, info = gave
    try:
        return observation, float(reward), bool(terminated), bool(truncated), info
    except (TypeError, ValueError):
        raise ValueError(
            f"reward {reward!r}, terminated {terminated!r}, truncated {truncated!r}: must be a number, and two bools"
        ) from None


def _what(gave: Any) -> str:
    return f"{len(gave)} values" if isinstance(gave, tuple | list) else f"a {type(gave).__name__}"


def check(space: Space[Any], observation: Any, reward: Any = 0.0, where: str = "observation") -> None:
    """Refuse what no network can be given.

    Raises:
        ValueError: The reward is not finite, or the observation is not finite, or not of its space.
    """
    if not np.isfinite(reward):
        raise ValueError(f"reward {reward} is not finite")
    if isinstance(space, Dict | Tuple):
        for key, part in space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces):
            check(part, observation[key], where=f"{where}.{key}")
    elif isinstance(space, Box):  # whose bounds many environments do not keep
        if np.shape(observation) != space.shape:
            raise ValueError(f"{where} has shape {np.shape(observation)}, must have {space.shape}")
        if not np.isfinite(observation).all():
            raise ValueError(f"{where} is not finite")
    elif isinstance(space, Discrete):
        if not space.start <= observation < space.start + space.n:
            raise ValueError(f"{where} is {observation}, must be in {space}")
    elif not space.contains(np.asarray(observation)):
        raise ValueError(f"{where} is {observation}, must be in {space}")


def whole(space: Space[Any], observations: Sequence[Any]) -> npt.NDArray[Any] | None:
    """Observations of a Box as one array; None where they are something else, or one is not as it must be."""
    if not isinstance(space, Box):
        return None
    try:
        array = np.asarray(observations)
        if array.shape[1:] == space.shape and (array.dtype.kind in "biu" or np.isfinite(array).all()):
            return array
    except (TypeError, ValueError):
        pass
    return None


def one_line(error: BaseException) -> str:
    """What an error says."""
    return " ".join(str(error).split())
