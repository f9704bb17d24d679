"""Which game somebody means: from what people type to the ROM's name in the Arcade Learning Environment (ALE)."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hsa2c.errors import ConfigError

#: ROMs that ALE cannot play alone: it ends the whole process when asked to load Combat so.
_NEED_TWO_PLAYERS = frozenset({"combat", "joust", "maze_craze", "warlords"})

#: What gymnasium's ids put around the name: ALE/Pong-v5, PongNoFrameskip-v4, PongDeterministic-v4.
_GYMNASIUM_ID = re.compile(r"^(?:ALE/)?(?P<name>.*?)(?:NoFrameskip|Deterministic)?(?:-v\d+)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Game:
    """A game by both its names."""

    name: str
    """As people write it: SpaceInvaders."""

    rom: str
    """As ALE's ROM is called: space_invaders."""


@cache
def all_games() -> tuple[Game, ...]:
    """Every one-player game whose ROM ships with ale_py, by name.

    Raises:
        ConfigError: ale_py is not installed.
    """
    # The folder is looked up without importing ale_py, which would bring gymnasium with it.
    spec = importlib.util.find_spec("ale_py")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("ale_py is not installed: the Atari games come with it (pip install ale-py)")
    folder = Path(next(iter(spec.submodule_search_locations))) / "roms"
    roms = {path.stem for path in folder.glob("*.bin")} - _NEED_TWO_PLAYERS
    return tuple(sorted((Game(_name(rom), rom) for rom in roms), key=lambda game: game.name))


def resolve_game(text: str) -> Game:
    """The game somebody means by ``SpaceInvaders``, ``space-invaders``, ``ALE/SpaceInvaders-v5`` and the like.

    Raises:
        ConfigError: There is no such game; the message names the nearest ones.
    """
    games = {_key(game.rom): game for game in all_games()}
    matched = _GYMNASIUM_ID.match(text.strip())
    key = _key(matched["name"]) if matched else ""
    if key in games:
        return games[key]
    if key in {_key(rom) for rom in _NEED_TWO_PLAYERS}:
        raise ConfigError(f"game = {text!r}: ALE has it for two players only")
    if env := _environment(key):
        raise ConfigError(f"game = {text!r}: no such game; did you mean --env {env}?")
    near = difflib.get_close_matches(key, games, cutoff=0.8) or difflib.get_close_matches(key, games, cutoff=0.5)
    if near:
        raise ConfigError(f"game = {text!r}: no such game; did you mean {_either(games[k].name for k in near)}?")
    raise ConfigError(f"game = {text!r}: no such game; {len(games)} are known, Pong and SpaceInvaders among them")


def _environment(key: str) -> str | None:
    """The newest id of Gymnasium's with this name and no game's, however it is typed."""
    import gymnasium

    ids = [id_ for id_, spec in gymnasium.registry.items() if not spec.namespace and _key(spec.name) == key]
    return max(ids, key=lambda id_: gymnasium.registry[id_].version or 0, default=None)


def _name(rom: str) -> str:
    """CamelCase exactly as ALE's gymnasium ids have it: tic_tac_toe_3d is TicTacToe3D."""
    return rom.title().replace("_", "")


def _key(text: str) -> str:
    """A name without case, spaces and punctuation."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _either(names: Iterable[str]) -> str:
    """``A``, ``A or B``, ``A, B or C``."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last
