import subprocess
import sys

import pytest

from hsa2c.envs.names import Game, all_games, resolve_game
from hsa2c.errors import ConfigError

SPACE_INVADERS = Game("SpaceInvaders", "space_invaders")


@pytest.mark.parametrize(
    "text",
    [
        "SpaceInvaders",
        "space_invaders",
        "space-invaders",
        "space invaders",
        "SPACEINVADERS",
        "  spaceinvaders ",
        "ALE/SpaceInvaders-v5",
        "ale/spaceinvaders",
        "SpaceInvaders-v0",
        "SpaceInvadersNoFrameskip-v4",
        "SpaceInvadersDeterministic-v4",
    ],
)
def test_every_usual_spelling_is_understood(text):
    assert resolve_game(text) == SPACE_INVADERS


@pytest.mark.parametrize(
    ("text", "name", "rom"),
    [
        ("ms pacman", "MsPacman", "ms_pacman"),
        ("tic-tac-toe-3d", "TicTacToe3D", "tic_tac_toe_3d"),
        ("Q*bert", "Qbert", "qbert"),
        ("H.E.R.O.", "Hero", "hero"),
        ("atlantis2", "Atlantis2", "atlantis2"),
    ],
)
def test_names_are_those_of_ale(text, name, rom):
    assert resolve_game(text) == Game(name, rom)


def test_every_game_is_found_by_both_its_names_and_its_gymnasium_id():
    games = all_games()
    assert len(games) > 100
    assert list(games) == sorted(games, key=lambda game: game.name)
    for game in games:
        assert resolve_game(game.name) == resolve_game(game.rom) == resolve_game(f"ALE/{game.name}-v5") == game


def test_the_games_are_exactly_those_gymnasium_registers():
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    registered = {id_ for id_ in gymnasium.registry if id_.startswith("ALE/")}
    assert {f"ALE/{game.name}-v5" for game in all_games()} == registered


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SpaceInvadrs", "game = 'SpaceInvadrs': no such game; did you mean SpaceInvaders?"),
        ("Brekout-v5", "game = 'Brekout-v5': no such game; did you mean Breakout?"),
        ("montezuma", "game = 'montezuma': no such game; did you mean MontezumaRevenge?"),
        ("Combat", "game = 'Combat': ALE has it for two players only"),
    ],
)
def test_a_wrong_name_is_one_line_that_helps(text, message):
    with pytest.raises(ConfigError) as raised:
        resolve_game(text)
    assert str(raised.value) == message


@pytest.mark.parametrize("text", ["", "zzzzzzzz", "-v5", "a\nb", "ALE/"])
def test_nonsense_is_one_line_too(text):
    with pytest.raises(ConfigError, match="no such game") as raised:
        resolve_game(text)
    assert "\n" not in str(raised.value)


def test_names_cost_no_heavy_import():
    heavy = {"torch", "gymnasium", "ale_py", "numpy"}
    code = f"import sys, hsa2c.envs.names as n; n.resolve_game('pong'); print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
