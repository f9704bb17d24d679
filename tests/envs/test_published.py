import math

import pytest

from hsa2c.envs.names import all_games
from hsa2c.envs.published import PUBLISHED, human_normalised


def test_the_usual_57_games_by_the_names_of_ale():
    assert len(PUBLISHED) == 57
    assert set(PUBLISHED) <= {game.name for game in all_games()}


def test_a_human_beats_random_play_everywhere():
    assert all(scores.human > scores.random for scores in PUBLISHED.values())


@pytest.mark.parametrize(
    ("name", "random", "human"),
    [
        ("Pong", -20.7, 14.6),
        ("Boxing", 0.1, 12.1),
        ("Breakout", 1.7, 30.5),
        ("Seaquest", 68.4, 42054.7),
        ("SpaceInvaders", 148.0, 1668.7),
        ("Qbert", 163.9, 13455.0),
        ("Amidar", 5.8, 1719.5),
    ],
)
def test_scores_as_printed(name, random, human):
    assert PUBLISHED[name] == (random, human)


def test_0_is_random_and_100_per_cent_human():
    for name, (random, human) in PUBLISHED.items():
        assert human_normalised(name, random) == 0
        assert human_normalised(name, human) == pytest.approx(100)
    # By hand: Boxing (100 - 0.1) / (12.1 - 0.1) = 832.5 %.
    assert math.isclose(human_normalised("Boxing", 100), 832.5)
    assert human_normalised("Pong", -21) == pytest.approx(-100 * 0.3 / 35.3)


def test_unknown_games_have_none():
    assert human_normalised("Tetris", 5) is None
