"""How many actions a game has, without starting a vector of emulators."""

from __future__ import annotations

from functools import cache

from hsa2c.envs import roms
from hsa2c.envs.names import Game


@cache
def num_actions(game: Game, *, full_action_set: bool) -> int:
    """Actions an agent chooses from: the game's own few, or all of the joystick, mostly 18.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    emulator = roms.preload(game, 1)[0]
    # A few games, LostLuggage for one, know fewer than 18: an emulator waits for ever for what it does not know.
    return len(emulator.getLegalActionSet() if full_action_set else emulator.getMinimalActionSet())
