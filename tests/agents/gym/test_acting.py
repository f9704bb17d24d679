"""Whole episodes by a policy: scores, steps, and a film of one."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from hsa2c.agents.gym.acting import AgentPolicy, play, record
from hsa2c.agents.gym.networks import Agent
from hsa2c.agents.gym.spaces import leaves
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import num_parameters
from hsa2c.errors import ConfigError


class Countdown(gymnasium.Env):
    """Lasts as long as its seed says, 1 a step."""

    observation_space, action_space = Box(0, 9, (1,)), Discrete(2)
    picture = np.zeros((16, 16, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 1 if seed is None else seed
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.left -= 1
        return np.zeros(1, np.float32), 1.0, self.left == 0, False, {}

    def render(self):
        return self.picture


def policy():
    spaces = leaves(Countdown.observation_space)
    agent = Agent(spaces, Countdown.action_space)
    statistics = Statistics(spaces, observations=True, rewards=False)
    v = np.zeros(num_parameters(agent) + statistics.size, np.float32)
    return AgentPolicy(
        agent, v, statistics, Countdown.observation_space, Countdown.action_space, bounds="clip", greedy=True, seed=1
    )


def test_each_episode_counts_whole_and_once():
    told = play(policy(), Countdown, episodes=18, seed=2)
    assert told["scores"] == [float(k) for k in range(2, 20)]
    assert told["agent_steps"] == sum(range(2, 20))


def test_a_film_of_an_episode(tmp_path):
    assert record(policy(), Countdown, tmp_path / "film.gif", seed=3) == 3.0
    assert (tmp_path / "film.gif").read_bytes().startswith(b"GIF8")


class Blind(Countdown):
    picture = None


def no_argument():
    raise TypeError("got an unexpected keyword argument 'render_mode'")


@pytest.mark.parametrize(
    ("make", "file", "said"),
    [
        (no_argument, "f.gif", "unexpected keyword argument"),
        (Blind, "f.gif", "renders no picture"),
        (Countdown, "no/f.gif", "cannot be written"),
        (Countdown, "f.nothing", "must end in .mp4 or .gif"),
    ],
)
def test_a_film_that_cannot_be_is_one_line(make, file, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        record(policy(), make, tmp_path / file, seed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_film_without_imageio_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    with pytest.raises(ConfigError, match=r"pip install 'hsa2c\[video\]'$"):
        record(policy(), Countdown, tmp_path / "f.gif", seed=1)
