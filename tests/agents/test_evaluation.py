import math
from types import SimpleNamespace

import numpy as np
import pytest

from hsa2c.agents.evaluation import evaluate, summarise
from hsa2c.envs.atari import AtariEnvs
from hsa2c.envs.names import resolve_game
from hsa2c.envs.settings import EnvConfig


class FakeEnvs:
    """A game's length and rewards follow from its seed and the actions; 1 in 3 is cut off. Short games score less.

    When a game has ended, the environment goes on with games of score 1e9, which nobody must count.
    """

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, seed=None):
        self.seeds = [seed + env for env in range(self.num_envs)]
        self.t = [0] * self.num_envs
        self.score = [0.0] * self.num_envs
        return self.observe()

    def observe(self):
        obs = np.zeros((self.num_envs, 4, 84, 84), np.uint8)
        for env in range(self.num_envs):
            obs[env, 0, 0, :2] = (self.seeds[env] or 0) % 251, self.t[env] % 251
        return obs

    def step(self, actions):
        assert actions.shape == (self.num_envs,)
        games = []
        for env, seed in enumerate(self.seeds):
            self.t[env] += 1
            self.score[env] += float(actions[env]) if seed is not None else 1e9
            if self.t[env] == (length(seed) if seed is not None else 1):
                games.append(
                    SimpleNamespace(
                        score=self.score[env],
                        agent_steps=self.t[env],
                        env=env,
                        capped=seed is not None and seed % 3 == 0,
                    )
                )
                self.seeds[env], self.t[env], self.score[env] = None, 0, 0.0
        return SimpleNamespace(obs=self.observe(), games=tuple(games))


def length(seed):
    return 1 + (seed * 7919) % 23


def policy(obs):
    """Sees nothing but the observation."""
    return (obs[:, 0, 0, 0].astype(np.int64) * 5 + obs[:, 0, 0, 1]) % 4


def score(seed):
    """What the game with this seed must come to, played alone."""
    return float(sum(((seed % 251) * 5 + t) % 4 for t in range(length(seed))))


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 10, 11, 64])
def test_the_games_do_not_depend_on_how_they_are_grouped(num_envs):
    seen = []
    scores = evaluate(policy, FakeEnvs(num_envs), 10, seed=40, on_game=lambda index, game: seen.append((index, game)))
    assert scores.scores == tuple(score(seed) for seed in range(40, 50))
    assert scores.agent_steps == sum(length(seed) for seed in range(40, 50))
    assert scores.capped == 3  # 42, 45, 48
    assert sorted(index for index, _ in seen) == list(range(10))
    assert all(game.score == scores.scores[index] for index, game in seen)


def test_short_games_are_not_taken_for_all():
    """Ten games whose first enders are the short ones: the mean is over the ten that were chosen beforehand."""
    scores = evaluate(lambda obs: np.ones(len(obs), np.int64), FakeEnvs(10), 10, seed=40)
    lengths = [length(seed) for seed in range(40, 50)]
    assert scores.mean == np.mean(lengths)
    assert min(lengths) * 3 < max(lengths)


def test_another_seed_is_other_games():
    assert evaluate(policy, FakeEnvs(4), 6, seed=0).scores != evaluate(policy, FakeEnvs(4), 6, seed=100).scores


@pytest.mark.slow
def test_real_games_do_not_depend_on_how_they_are_grouped():
    config = EnvConfig(max_frames=600, clip_rewards=False, sticky_actions=0.25)

    def by_image(obs):
        return obs.reshape(len(obs), -1).sum(axis=1, dtype=np.int64) % 6

    results = []
    for num_envs in (2, 3):
        with AtariEnvs(resolve_game("space_invaders"), config, num_envs, seed=0) as envs:
            results.append(evaluate(by_image, envs, 3, seed=1000))
    assert results[0] == results[1]
    assert len(set(results[0].scores)) > 1
    assert results[0].agent_steps <= 3 * 150


def test_statistics_by_hand():
    scores = summarise([1.0, 10.0, 2.0, 3.0], agent_steps=7, capped=1)
    assert (scores.games, scores.mean, scores.median, scores.min, scores.max) == (4, 4.0, 2.5, 1.0, 10.0)
    # Squared distances from 4: 9 + 36 + 4 + 1 = 50, over 4 - 1.
    assert math.isclose(scores.std, math.sqrt(50 / 3))
    assert scores.scores == (1.0, 10.0, 2.0, 3.0)
    assert (scores.agent_steps, scores.capped) == (7, 1)


def test_statistics_of_one_game_and_of_none():
    scores = summarise([-21])
    assert (scores.mean, scores.median, scores.std, scores.min, scores.max) == (-21, -21, 0, -21, -21)
    with pytest.raises(AssertionError):
        summarise([])
