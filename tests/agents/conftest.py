"""A tiny stand-in for the emulators: every observation tells where and when it was made."""

from typing import NamedTuple

import numpy as np
import pytest

from hsa2c.agents.network import OBSERVATION_SHAPE

MOST_STEPS = 60  # so that env and clock fit one grey level


class FakeGame(NamedTuple):
    score: float
    frames: int


class FakeStep(NamedTuple):
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    games: tuple


class FakeEnvs:
    """Environment i plays episodes of ``lengths[i]`` steps (None: for ever), each followed by a step that is its reset.

    After c steps environment i shows the grey level 60 i + c everywhere. An action a is rewarded with a - i, a reset
    with nothing.
    """

    def __init__(self, lengths, truncates=False):
        self.num_envs = len(lengths)
        self.lengths, self.truncates = lengths, truncates
        self.clock = 0
        self.ages = [0] * self.num_envs
        self.scores = [0.0] * self.num_envs
        self.log = []
        """(obs before, actions, step) of every step so far."""
        self.closed = False

    def observation(self):
        levels = 60 * np.arange(self.num_envs) + self.clock
        assert self.clock < MOST_STEPS
        return np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (self.num_envs, *OBSERVATION_SHAPE)).copy()

    def reset(self):
        return self.observation()

    def step(self, actions):
        before = self.observation()
        self.clock += 1
        valid, ended, reward, games = [], [], [], []
        for i, length in enumerate(self.lengths[: self.num_envs]):
            playing = length is None or self.ages[i] < length
            self.ages[i] = self.ages[i] + 1 if playing else 0
            reward.append(actions[i] - i if playing else 0)
            self.scores[i] += reward[i]
            valid.append(playing)
            ended.append(playing and self.ages[i] == length)
            if ended[i]:
                games.append(FakeGame(float(self.scores[i]), 4 * length))
                self.scores[i] = 0.0
        end, no = np.array(ended), np.zeros(self.num_envs, bool)
        ends = (no, end) if self.truncates else (end, no)
        step = FakeStep(self.observation(), np.array(reward, np.float32), *ends, np.array(valid), tuple(games))
        self.log.append((before, np.array(actions), step))
        return step

    def close(self):
        self.closed = True


@pytest.fixture
def make_envs():
    return FakeEnvs


def levels(observations):
    """The grey level of each observation, which names its environment and clock."""
    return np.asarray(observations)[..., 0, 0, 0]


@pytest.fixture(name="levels")
def levels_fixture():
    return levels
