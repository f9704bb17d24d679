"""Rollouts against environments whose whole story is known."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.networks import Agent, initialise
from hsa2c.agents.gym.rollout import Player
from hsa2c.agents.gym.spaces import leaves
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.returns import gae
from hsa2c.envs.episodes import Envs
from hsa2c.errors import ProblemError
from tests.agents.gym.scripted import Scripted

LENGTH, T, N, SEED = 3, 8, 2, 40


def player(make, t_max=T, recurrent="none", discount=0.5):
    envs = Envs(make, N, seed=SEED)
    spaces = leaves(envs.observation_space)
    agent = Agent(spaces, envs.action_space, hidden=4, recurrent=recurrent)
    initialise(agent, 1)
    statistics = Statistics(spaces, observations=False, rewards=True)
    how = {"t_max": t_max, "discount": discount}
    return Player(envs, agent, Actions(envs.action_space), statistics, **how), agent


def never():
    return False


TAIL = torch.zeros(3)


@pytest.mark.parametrize("truncates", [False, True])
def test_a_rollout_is_what_happened(truncates):
    play, _ = player(lambda: Scripted(LENGTH, truncates))
    r = play.play(TAIL, never)
    for i in range(N):
        seen = [(SEED + i, t // 4, t % 4) for t in range(T + 1)]  # also the last observation of an episode
        assert r.observations[""][:, i].tolist() == [list(map(float, one)) for one in seen]
        assert r.rewards[:, i].tolist() == [1, 2, 3, 0, 1, 2, 3, 0]
        assert r.valid[:, i].tolist() == [True, True, True, False] * 2
        assert r.starts[:, i].tolist() == [True, False, False, False] * 2 + [True]
        ends = [False, False, True, False] * 2
        assert r.terminated[:, i].tolist() == ([False] * T if truncates else ends)
        assert r.truncated[:, i].tolist() == (ends if truncates else [False] * T)
        assert r.sums[:, i].tolist() == [1, 2.5, 4.25, 0] * 2
    assert [(one.score, one.agent_steps) for one in play.episodes] == [(6.0, 3)] * 4
    assert play.agent_steps == 12


@pytest.mark.parametrize("truncates", [False, True])
def test_returns_are_the_true_ones(truncates):
    play, agent = player(lambda: Scripted(LENGTH, truncates))
    r = play.play(TAIL, never)
    ends = {"terminated": r.terminated, "truncated": r.truncated, "valid": r.valid}
    values = r.values.numpy()
    _, returns = gae(r.rewards, values[:-1], values[-1], **ends, discount=1.0, gae_lambda=1.0)
    last = torch.tensor([[SEED, 0.0, LENGTH]])  # the observation that an episode which was cut off ended with
    with torch.no_grad():
        _, value, _ = agent({"": last}, (), torch.zeros(1, dtype=torch.bool))
    more = value.item() if truncates else 0.0
    assert returns[:3, 0] == pytest.approx([6 + more, 5 + more, 3 + more], rel=1e-4)


def test_probabilities_and_values_are_those_of_the_policy_that_played():
    play, agent = player(Scripted, recurrent="lstm")
    r = play.play(TAIL, never)
    x, starts = torch.from_numpy(r.observations[""]), torch.from_numpy(r.starts)
    with torch.no_grad():
        logits, values = agent.sequence({"": x}, r.state, starts)
    torch.testing.assert_close(r.values, values)
    log_p = logits[:-1].log_softmax(-1).gather(-1, r.actions.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(r.log_p, log_p)


def test_the_next_rollout_goes_on():
    play, _ = player(Scripted, t_max=6)
    last = play.play(TAIL, never).observations[""][-1].copy()
    sums = play.play(TAIL, never).sums[:, 0].tolist()
    assert play.rollout.observations[""][0].tolist() == last.tolist()
    assert sums == [4.25, 0, 1, 2.5, 4.25, 0]  # the episode that the rollout's end has cut


def interruptions(pattern):
    """Interrupts at these calls, counted from each answer of yes; None: never again."""
    waits = itertools.chain(pattern, itertools.repeat(None))
    left = next(waits)

    def interrupted():
        nonlocal left
        if left is None:
            return False
        left -= 1
        if left < 0:
            left = next(waits)
            return True
        return False

    return interrupted


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_interrupted_rollouts_lose_nothing(recurrent):
    """Each step is made once, each episode counted once, and memory is as if nobody had interrupted."""
    log, t_max = [], 6
    play, agent = player(lambda: Scripted(LENGTH, log=log), t_max=t_max, recurrent=recurrent)
    interrupted, whole = interruptions([0, 0, 2, 5, 3, 0, 1, 4]), 0
    while whole < 4:
        r = play.play(TAIL, interrupted)
        if r is None:
            continue
        whole += 1
        first = r.observations[""][0]
        steps_before = int(first[0, 1]) * (LENGTH + 1) + int(first[0, 2])
        stream = [(t // (LENGTH + 1), t % (LENGTH + 1)) for t in range(steps_before + t_max + 1)]
        for i in range(N):
            assert [tuple(x[1:]) for x in r.observations[""][:, i]] == stream[steps_before:]
            assert r.starts[:, i].tolist() == [k == 0 for _, k in stream[steps_before:]]
        x = torch.tensor([[(SEED + i, *at) for i in range(N)] for at in stream], dtype=torch.float32)
        starts = torch.tensor([[k == 0] * N for _, k in stream])
        with torch.no_grad():
            _, values = agent.sequence({"": x}, agent.begin(N), starts)
        torch.testing.assert_close(r.values, values[steps_before:])
    steps = [line for line in log if line[0] == "step"]
    assert len(set(steps)) == len(steps)
    assert play.agent_steps == len(steps)
    assert len(play.episodes) == sum(line[3] == LENGTH for line in steps)


@pytest.mark.parametrize("mask", ["info", "entry"])
def test_masks_are_kept_with_their_steps_and_never_violated(mask):
    play, _ = player(lambda: Scripted(LENGTH, mask=mask), t_max=T)  # which asserts that none is
    for _ in range(5):
        r = play.play(TAIL, never)
        for t, i in itertools.product(range(T + 1), range(N)):
            k = int(next(iter(r.observations.values()))[t, i, 2])
            assert r.masks[t, i].tolist() == [k % 2 == 0, k % 2 == 1]
        assert (r.log_p[torch.from_numpy(r.valid)] == 0).all(), "there is but one action"


def test_a_mask_that_is_no_longer_said_holds_no_longer():
    class Sometimes(Scripted):
        def seen(self):
            observation, info = super().seen()
            return observation, info if self.episode == 0 else {}

        def step(self, action):
            self.mask = "info" if self.episode == 0 else None
            return super().step(action)

    play, _ = player(lambda: Sometimes(LENGTH, mask="info"), t_max=4)
    assert not play.play(TAIL, never).masks[:-1].all()
    assert play.play(TAIL, never).masks[:-1].all()


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,))], ids=str)
def test_a_mask_that_does_not_fit_ends_the_run(space):
    class Misfit(Scripted):
        action_space = space

    with pytest.raises(ProblemError, match="action_mask of 2 numbers does not fit"):
        envs = Envs(lambda: Misfit(mask="info"), N, seed=1)
        agent = Agent(leaves(envs.observation_space), space)
        statistics = Statistics({}, observations=False, rewards=False)
        Player(envs, agent, Actions(space), statistics, t_max=T, discount=0.9)


def test_a_fault_ends_an_episode_without_a_lesson():
    class Fails(Scripted):
        def step(self, action):
            if self.episode == 0 and self.step_number == 1 and self.copy == SEED:
                return np.zeros(3, np.float32), float("nan"), False, False, {}
            return super().step(action)

    play, _ = player(lambda: Fails(LENGTH))
    r = play.play(TAIL, never)
    assert r.valid[:, 0].tolist() == [True, False, True, True, True, False, True, True]
    assert r.rewards[:, 0].tolist() == [1, 0, 1, 2, 3, 0, 1, 2]
    assert r.starts[:, 0].tolist() == [True, False, True, False, False, False, True, False, False]
    assert not r.terminated[0, 0]
    assert r.sums[:3, 0].tolist() == [1, 0, 1]
