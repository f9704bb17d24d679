"""Agents that act after training: masks, memory, episodes and their scores."""

import numpy as np
import pytest
import torch

from hsa2c.agents.gym.acting import AgentPolicy, check_film, play, record
from hsa2c.agents.gym.networks import Agent, initialise
from hsa2c.agents.gym.spaces import leaves
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import num_parameters
from hsa2c.errors import ConfigError
from tests.agents.gym.filmed import Filmed
from tests.agents.gym.scripted import Scripted

LENGTH, TAIL = 3, 7  # weight, means and mean squares of three numbers


def policy(env, *, recurrent="none", greedy=False, more=0):
    spaces = leaves(env.observation_space)
    agent = Agent(spaces, env.action_space, hidden=8, recurrent=recurrent)
    initialise(agent, 1)
    v = torch.cat([parameter.detach().reshape(-1) for parameter in agent.parameters()])
    v = torch.cat([v, torch.zeros(TAIL + more)]).numpy()
    assert len(v) == num_parameters(agent) + TAIL + more
    statistics = Statistics(spaces, observations=True, rewards=False)
    spaces = env.observation_space, env.action_space
    return AgentPolicy(agent, v, statistics, *spaces, bounds="clip", greedy=greedy, seed=1)


@pytest.mark.parametrize(
    ("observation", "mask", "said"),
    [
        (np.zeros(2), None, "observation has shape (2,), must have (3,)"),
        (None, None, "observation has shape (), must have (3,)"),
        (np.float32([0, np.nan, 0]), None, "observation is not finite"),
        (np.zeros(3), [1, 1, 1, 1, 1], "action_mask of 5 numbers does not fit"),
    ],
)
def test_what_is_not_of_its_space_is_refused(observation, mask, said):
    with pytest.raises(ConfigError) as refused:
        policy(Scripted(LENGTH))(observation, mask)
    assert said in str(refused.value)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("mask", ["info", "entry"])
def test_masks_are_never_violated_in_evaluation(mask, greedy):
    def make():
        return Scripted(LENGTH, mask=mask)  # which asserts it

    result = play(policy(make(), greedy=greedy), make, episodes=20, seed=1)
    assert result["scores"] == [6.0] * 20


def test_each_episode_has_its_seed_and_its_score():
    log = []

    def make():
        return Scripted(LENGTH, log=log)

    result = play(policy(make()), make, episodes=20, seed=100)
    begun = [line[1] for line in log if line[0] == "reset" and line[2] == 0]
    assert begun == list(range(100, 120))
    assert (result["mean"], result["episodes"], result["agent_steps"]) == (6.0, 20, 60)


def test_an_episode_that_a_fault_has_cost_has_no_score():
    class Fails(Scripted):
        failed = False

        def step(self, action):
            if self.step_number == 2 and not Fails.failed:
                Fails.failed = True
                raise OSError("no board")
            return super().step(action)

    assert play(policy(Fails()), Fails, episodes=2, seed=1)["scores"] == [6.0, 6.0]
    assert Fails.failed


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_a_recurrent_policy_remembers_until_reset(recurrent):
    acting = policy(Scripted(), recurrent=recurrent)
    acting.reset()
    observation = np.float32([1, 2, 3])
    torch.manual_seed(1)
    first = [acting(observation) for _ in range(30)]
    acting.reset()
    torch.manual_seed(1)
    assert [acting(observation) for _ in range(30)] == first


def test_a_recurrent_policy_keeps_its_number_of_environments_until_reset():
    acting = policy(Scripted(), recurrent="lstm", greedy=True)
    observation = np.float32([1, 2, 3])
    assert acting.batch([observation] * 3).shape[0] == 3
    with pytest.raises(ConfigError, match="1 observations: must be 3, of which it remembers"):
        acting(observation)
    acting.reset()
    assert acting(observation) in Scripted().action_space


def shown():
    return Filmed(render_mode="rgb_array")


def test_a_film_is_written_whole_and_at_the_environments_speed(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    assert record(policy(shown()), shown, tmp_path / "a.gif", seed=1) == 1 + 2 + 3
    assert imageio.immeta(tmp_path / "a.gif")["duration"] == 100
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


@pytest.mark.parametrize(
    ("make", "file", "said"),
    [
        (Filmed, "a.mp4", "renders no picture, must render rgb_array"),
        (Scripted, "a.mp4", "does not render rgb_array: NotImplementedError"),
        (lambda: 1 / 0, "a.mp4", "does not render rgb_array: ZeroDivisionError"),
        (shown, "a.avi", "must end in"),
        (shown, "x.gif/a.gif", "^video = "),
    ],
)
def test_what_cannot_be_filmed_is_known_before_playing(make, file, said, tmp_path):
    (tmp_path / "x.gif").touch()
    with pytest.raises(ConfigError, match=said):
        check_film(make, tmp_path / file, seed=1)
    check_film(shown, tmp_path / "a.mp4", seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]


def test_a_checkpoint_of_another_network_is_refused():
    with pytest.raises(ConfigError, match="must have"):
        policy(Scripted(), more=1)
