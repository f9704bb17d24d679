"""How many actions a game has, without starting a vector of emulators."""

from __future__ import annotations

import contextlib
import io
from functools import cache

from hsa2c.envs.names import Game
from hsa2c.errors import ConfigError

_ALL_ACTIONS = 18


@cache
def num_actions(game: Game, *, full_action_set: bool) -> int:
    """Actions an agent chooses from: the game's own few, or all 18 of the joystick.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    if full_action_set:
        return _ALL_ACTIONS
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            path = ale_py.roms.get_rom_path(game.rom)
            if path is None:
                raise OSError("there is none")
            emulator.loadROM(path)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"game = {game.name!r}: its ROM cannot be read: {' '.join(str(error).split())}") from None
    return len(emulator.getMinimalActionSet())
