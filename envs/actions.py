"""How many actions a game has, without starting a vector of emulators."""

from __future__ import annotations

from functools import cache

from hsa2c.envs import roms
from hsa2c.envs.names import Game

_ALL_ACTIONS = 18


@cache
def num_actions(game: Game, *, full_action_set: bool) -> int:
    """Actions an agent chooses from: the game's own few, or all 18 of the joystick.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    return _ALL_ACTIONS if full_action_set else len(roms.preload(game, 1)[0].getMinimalActionSet())
