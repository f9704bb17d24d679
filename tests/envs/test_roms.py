import pytest

from hsa2c.envs import roms
from hsa2c.envs.actions import num_actions
from hsa2c.envs.atari import AtariEnvs
from hsa2c.envs.names import resolve_game
from hsa2c.envs.settings import EnvConfig

FREEWAY = resolve_game("freeway")


@pytest.fixture
def loads(monkeypatch):
    """The games of the emulators that are loaded in a test, which finds none ready."""
    games, load = [], roms.load

    def noted(game, **how):
        games.append(game)
        return load(game, **how)

    monkeypatch.setattr(roms, "ready_emulators", {})
    monkeypatch.setattr(roms, "load", noted)
    return games


def test_an_emulator_that_is_ready_is_not_loaded_again(loads):
    roms.preload(FREEWAY, 1)
    num_actions.__wrapped__(FREEWAY, full_action_set=False)
    with AtariEnvs(FREEWAY, EnvConfig(), 2, seed=0, in_thread=True) as envs:
        envs.reset()
    assert loads == [FREEWAY] * 2
