"""Any Gymnasium environment, several copies side by side: from an id, or from a function that makes one.

An episode that has ended stays on its last observation. The next action in that environment is ignored, the step is not
`valid`, and its observation is the first of a new episode ("next-step" autoreset), as with `hsa2c.envs.atari`.

An environment that raises, takes longer than a limit for one step, or gives what is not in its space costs its episode:
it is made anew, and counted. One that hangs in native code is not noticed: Python is not asked meanwhile. One that ends
its process is made anew with that, by who keeps the processes.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar, NamedTuple

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple

from hsa2c import names
from hsa2c.envs.names import resolve_game
from hsa2c.errors import ConfigError, ProblemError

Make = Callable[[], "gymnasium.Env[Any, Any]"]

_EPISODES, _MOST_FAULTS = 40, 20  # if so many of the last episodes failed, something is wrong for good


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


class _Took(NamedTuple):
    """What came of a step, by environment."""

    observations: list[Any]
    masks: list[Any]
    rewards: list[float]
    ends: list[tuple[bool, bool, bool]]
    """terminated, truncated, valid."""


_NOTHING = (False, False, False)


class Envs:
    """Several copies of an environment.

    Args:
        make: Makes one.
        num_envs: Copies.
        seed: Copy i begins with seed + i.
        step_limit_s: Seconds that one step or reset may take; None: as long as it likes.
        name: What it is called where it fails.

    Attributes:
        observation_space: Of one.
        action_space: Of one.
        faults: Environments that were made anew, since the last look.
        last_fault: Of these the last, in words.
    """

    def __init__(
        self, make: Make, num_envs: int, *, seed: int, step_limit_s: float | None = None, name: str = "environment"
    ) -> None:
        self._make, self._name = make, name
        self._limit = _Limit(step_limit_s)
        self._envs = []
        for _ in range(num_envs):
            self._limit.arm()
            with self._limit:
                self._envs.append(make())
        self._seed = seed
        self.observation_space: Space[Any] = self._envs[0].observation_space
        self.action_space: Space[Any] = self._envs[0].action_space
        self.faults, self.last_fault = 0, ""
        self._failed: deque[bool] = deque(maxlen=_EPISODES)  # of the last episodes, of all copies
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
                    took.observations[i], reward, terminated, truncated, info = env.step(actions[i])
                took.masks[i], took.rewards[i] = info.get("action_mask"), float(reward)
                took.ends[i] = bool(terminated), bool(truncated) and not terminated, True
            except Exception as error:
                took.observations[i], took.masks[i] = self._replace(i, error)
        observations = self._checked(took)
        ends = np.array(took.ends, bool).T
        rewards = np.array(took.rewards, np.float32)
        return EnvStep(observations, took.masks, rewards, ends[0], ends[1], ends[2], self._count(took))

    def _checked(self, took: _Took) -> list[Any] | npt.NDArray[Any]:
        """The observations of all; one that no network can be given, or a reward, costs its environment."""
        whole = _whole(self.observation_space, took.observations)
        if whole is not None and math.isfinite(sum(took.rewards)):
            return whole
        for i, (_, _, valid) in enumerate(took.ends):
            try:
                if valid:
                    _check(self.observation_space, took.observations[i], took.rewards[i])
            except Exception as error:
                took.observations[i], took.masks[i] = self._replace(i, error)
                took.rewards[i], took.ends[i] = 0.0, _NOTHING
        whole = _whole(self.observation_space, took.observations)
        return took.observations if whole is None else whole

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
                observation, info = self._envs[i].reset(seed=seed)
            _check(self.observation_space, observation)
        except Exception as error:
            return self._replace(i, error)
        self._over[i] = False
        return observation, info.get("action_mask")

    def _replace(self, i: int, error: Exception) -> tuple[Any, Any]:
        """Make an environment anew that has failed, and begin an episode there.

        Raises:
            ProblemError: Half of the last episodes failed, or it cannot be made.
        """
        self.faults += 1
        self._failed.append(True)
        where = f"{self._name}, copy {i}"
        self.last_fault = f"{where}, after {self._lengths[i]} steps: {type(error).__name__}: {_line(error)}"
        if sum(self._failed) >= _MOST_FAULTS:
            raise ProblemError(f"{_MOST_FAULTS} of the last {len(self._failed)} episodes failed; {self.last_fault}")
        with contextlib.suppress(Exception):
            self._envs[i].close()
        self._seed += self.num_envs
        try:
            with self._limit:
                self._envs[i] = self._make()
        except Exception as again:
            raise ProblemError(f"{where}: cannot be made anew: {type(again).__name__}: {_line(again)}") from error
        return self._begin(i, seed=self._seed + i)


def make_one(make: Make, name: str, limit_s: float | None) -> gymnasium.Env[Any, Any]:
    """One environment, before any training.

    Args:
        make: Makes it.
        name: What it is called in a complaint.
        limit_s: Seconds that it may take; None: as long as it likes.

    Raises:
        ConfigError: It cannot be made, or is none.
    """
    try:
        with _limited(limit_s):
            env = make()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        extra = re.search(r"gymnasium\[(box2d|classic-control|mujoco)\]", str(error))
        if isinstance(error, gymnasium.error.DependencyNotInstalled) and extra:
            raise ConfigError(f"{name}: needs {extra[0]}: pip install 'hsa2c[gym]'") from None
        raise ConfigError(f"{name}: cannot be made: {type(error).__name__}: {_line(error)}") from None
    for member in ("observation_space", "action_space", "reset", "step"):
        if not hasattr(env, member):
            raise ConfigError(f"{name}: gave a {type(env).__name__} without {member}, must be a gymnasium.Env")
    return env


def try_reset(make: Make, name: str, limit_s: float | None, seed: int) -> None:
    """Begin an episode in one environment; during training it would be one fault after the other.

    Args:
        make: As for `make_one`, as the next two.
        name: See there.
        limit_s: See there.
        seed: Of the episode.

    Raises:
        ConfigError: It cannot be made, or reset, or gives what is not in its space.
    """
    env = make_one(make, name, limit_s)
    try:
        with _limited(limit_s):
            observation, _ = env.reset(seed=seed)
        _check(env.observation_space, observation)
    except Exception as error:
        raise ConfigError(f"{name}: reset fails: {type(error).__name__}: {_line(error)}") from None
    finally:
        with contextlib.suppress(Exception):
            env.close()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())


def of_pixels(make: Make, *, grey: bool, size: int | None, stack: int) -> Make:
    """The same with its pixels made grey, of another size, and stacked, by Gymnasium's wrappers.

    Raises:
        ConfigError: Its observations are no pixels.
    """
    if not grey and size is None and stack == 1:
        return make

    def made() -> gymnasium.Env[Any, Any]:
        from gymnasium import wrappers

        env = make()
        space = env.observation_space
        if space.dtype != np.uint8 or len(space.shape or ()) not in (2, 3):
            raise ConfigError(f"env.image: observations are {space}, must be pixels, uint8 of two or three axes")
        env = wrappers.GrayscaleObservation(env) if grey and len(space.shape or ()) == 3 else env
        env = env if size is None else wrappers.ResizeObservation(env, (size, size))
        return env if stack == 1 else wrappers.FrameStackObservation(env, stack)

    return made


def maker(env: Any, **options: Any) -> Make:
    """What makes an environment: of an id of Gymnasium's, or of a function or class.

    Raises:
        ConfigError: There is no such id.
    """
    if callable(env):
        return lambda: env(**options)
    module, _, name = env.rpartition(":")
    try:
        if name.startswith("ALE/"):
            _quiet_ale(f"env = {env!r}")
        if module:
            names.module_of(module, f"env = {env!r}")  # which registers its environments
        gymnasium.spec(name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"env = {env!r}: {error}") from None
    except gymnasium.error.Error:
        raise ConfigError(f"env = {env!r}: no such environment is registered{_nearest(name)}") from None

    def make() -> gymnasium.Env[Any, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of an older version, which was asked for
            return gymnasium.make(env, disable_env_checker=True, **options)

    return make


def _quiet_ale(name: str) -> None:
    """Register the games of the ALE, which says its version otherwise."""
    try:
        import ale_py
    except ModuleNotFoundError:
        raise ConfigError(f"{name}: ale_py is not installed: pip install ale-py") from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)


def _nearest(name: str) -> str:
    with contextlib.suppress(ConfigError):
        game = resolve_game(name).name
        return f"; for the game there is --game {game}, or --env ALE/{game}-v5"
    ids = {known.lower(): known for known in gymnasium.registry}
    found = difflib.get_close_matches(name.lower(), ids, n=3, cutoff=0.5)
    if found:
        return f"; did you mean {', '.join(ids[one] for one in found)}?"
    return "; one of your own is module:function"


def _check(space: Space[Any], observation: Any, reward: Any = 0.0, where: str = "observation") -> None:
    """Refuse what no network can be given.

    Raises:
        ValueError: The reward is not finite, or the observation is not finite, or not of its space.
    """
    if not np.isfinite(reward):
        raise ValueError(f"reward {reward} is not finite")
    if isinstance(space, Dict | Tuple):
        for key, part in space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces):
            _check(part, observation[key], where=f"{where}.{key}")
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


@contextlib.contextmanager
def _limited(limit_s: float | None) -> Iterator[None]:
    """The same for one block."""
    limit = _Limit(limit_s)
    limit.arm()
    try:
        with limit:
            yield
    finally:
        limit.disarm()


def _whole(space: Space[Any], observations: list[Any]) -> npt.NDArray[Any] | None:
    """Observations of a Box as one array; None where they are something else, or one is not as it must be."""
    if not isinstance(space, Box):
        return None
    try:
        whole = np.asarray(observations)
        if whole.shape[1:] == space.shape and (whole.dtype.kind in "biu" or np.isfinite(whole).all()):
            return whole
    except (TypeError, ValueError):
        pass
    return None


class _Limit:
    """Raises TimeoutError in a block that takes longer, where it is Python, or waits.

    The timer is set once for a step of all environments, and again where it goes off within a block that has time left:
    to set it for each would cost more than many a step.
    """

    _in_charge: ClassVar[_Limit | None] = None
    """Whose handler the process has."""
    _before: ClassVar[Any] = signal.SIG_DFL
    """The one that it had."""

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._began_at: float | None = None

    def arm(self) -> None:
        """Before blocks, now and then."""
        if self._limit_s is None or threading.current_thread() is not threading.main_thread():
            return
        if _Limit._in_charge is not self:
            before = signal.signal(signal.SIGALRM, self._over)
            _Limit._before = before if _Limit._in_charge is None else _Limit._before
            _Limit._in_charge = self
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)

    def disarm(self) -> None:
        """Leave the timer to others."""
        if _Limit._in_charge is self:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, _Limit._before)
            _Limit._in_charge = None

    def __enter__(self) -> None:
        self._began_at = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self._began_at = None

    def _over(self, signum: int, frame: FrameType | None) -> None:
        if self._began_at is None or self._limit_s is None:
            return
        left_s = self._began_at + self._limit_s - time.monotonic()
        if left_s <= 0:
            self._began_at = None
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)  # for the others of this step
            raise TimeoutError(f"no answer within {self._limit_s:g} s (env.step_limit_s)")
        signal.setitimer(signal.ITIMER_REAL, left_s)
