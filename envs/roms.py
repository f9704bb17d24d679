"""ALE's emulators with a game's ROM in them: one for a question, or some that a process shares with those it forks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hsa2c.envs.names import Game
from hsa2c.errors import ConfigError

if TYPE_CHECKING:
    from ale_py import ALEInterface

ready_emulators: dict[Game, list[ALEInterface]] = {}
"""Emulators that nobody has played in; a forked process has copies of its own."""


def preload(game: Game, number: int) -> list[ALEInterface]:
    """Have so many emulators ready, for this process or for those that it forks.

    Returns:
        The emulators, to be looked at only.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    ready = ready_emulators.setdefault(game, [])
    while len(ready) < number:
        ready.append(load(game))
    return ready


def take(game: Game) -> ALEInterface:
    """An emulator to play in: one that is ready, or else a new one.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    ready = ready_emulators.get(game)
    return ready.pop() if ready else load(game)


def load(game: Game, *, sticky_actions: float = 0.0, seed: int = 0) -> ALEInterface:
    """A new emulator. It takes 0.05 to 0.1 s of a core, most of it for a table of colours that nobody needs here.

    Args:
        game: Whose ROM it has.
        sticky_actions: Chance, each frame, that it repeats the action of the frame before.
        seed: Of that chance; nothing else in an emulator is random.

    Raises:
        ConfigError: The ROM is missing or damaged.
    """
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", seed)
    emulator.setFloat("repeat_action_probability", sticky_actions)
    with reading(game):
        path = ale_py.roms.get_rom_path(game.rom)
        if path is None:
            raise OSError("there is none")
        emulator.loadROM(path)
    return emulator


@contextlib.contextmanager
def reading(game: Game) -> Iterator[None]:
    """Turn ale_py's errors about a ROM into ours, and keep it from printing the folder that ALE_ROMS_DIR names."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"game = {game.name!r}: its ROM cannot be read: {' '.join(str(error).split())}") from None
