"""How an environment is made, of any source, and what is said where that fails."""

from __future__ import annotations

import contextlib
import difflib
import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from hsa2c import names
from hsa2c.envs.limit import limited
from hsa2c.envs.names import resolve_game
from hsa2c.envs.steps import begun, check, one_line
from hsa2c.errors import ConfigError

Make = Callable[[], "gymnasium.Env[Any, Any]"]


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
        with limited(limit_s):
            env = make()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        extra = re.search(r"gymnasium\[(box2d|classic-control|mujoco)\]", str(error))
        if isinstance(error, gymnasium.error.DependencyNotInstalled) and extra:
            raise ConfigError(f"{name}: needs {extra[0]}: pip install 'hsa2c[gym]'") from None
        raise ConfigError(f"{name}: cannot be made: {type(error).__name__}: {one_line(error)}") from None
    if hasattr(env, "single_observation_space"):
        raise ConfigError(f"{name}: gave a {type(env).__name__}, several environments, must be one")
    for member in ("observation_space", "action_space", "reset", "step"):
        if not hasattr(env, member):
            raise ConfigError(f"{name}: gave a {type(env).__name__} without {member}, must be a gymnasium.Env")
    return env


def try_reset(make: Make, name: str, limit_s: float | None, seed: int) -> tuple[Any, Any]:
    """Begin an episode in one environment; during training it would be one fault after the other.

    Args:
        make: As for `make_one`, as the next two.
        name: See there.
        limit_s: See there.
        seed: Of the episode.

    Returns:
        Its first observation, and info.

    Raises:
        ConfigError: It cannot be made, or reset, or gives what is not in its space.
    """
    env = make_one(make, name, limit_s)
    try:
        with limited(limit_s):
            gave = env.reset(seed=seed)
        observation, info = begun(gave)
        check(env.observation_space, observation)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name}: reset fails: {type(error).__name__}: {one_line(error)}") from None
    finally:
        with contextlib.suppress(Exception):
            env.close()
    return observation, info


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
    return "; one of your own is module:function, or /folder/script.py:function"
