"""Gradients of `ActorCritic` against a slow reference: step by step, from the formulas."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.networks import Agent, initialise
from hsa2c.agents.gym.problem import ActorCritic
from hsa2c.agents.gym.rollout import Player
from hsa2c.agents.gym.settings import ActorCriticConfig
from hsa2c.agents.gym.spaces import leaves
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import bind, num_parameters
from hsa2c.agents.returns import gae, vtrace_targets
from hsa2c.envs.episodes import Envs
from hsa2c.errors import ProblemError
from tests.agents.gym.scripted import Scripted

T, N, SEED = 6, 3, 5
PLAIN = ActorCriticConfig(
    t_max=T, batch=T * N, passes=2, hidden=8, discount=0.9, gae_lambda=0.8, entropy_weight=0.01,
    normalise_observations=False, normalise_rewards=False, max_gradient_norm=None,
)  # fmt: skip


def never():
    return False


class World:
    """The same environments, network and randomness, as often as asked for."""

    def __init__(self, config, mask=None):
        self.config, self.mask = config, mask
        _, agent, self.statistics = self.parts()
        initialise(agent, 1)
        self.dim = num_parameters(agent)
        self.u = torch.cat([parameter.detach().reshape(-1) for parameter in agent.parameters()])
        self.u = torch.cat([self.u, torch.zeros(self.statistics.size)])
        if self.statistics.size:  # as it may be after a while: weight, means, mean squares
            half = (self.statistics.size - 1) // 2
            mean = torch.linspace(-0.3, 0.5, half)
            self.u[self.dim :] = torch.cat([torch.tensor([0.5]), 0.5 * mean, 0.5 * (mean.square() + 2)])

    def parts(self):
        envs = Envs(lambda: Scripted(3, mask=self.mask), N, seed=0)
        spaces, config = leaves(envs.observation_space), self.config
        agent = Agent(spaces, envs.action_space, hidden=config.hidden, layers=1, recurrent=config.recurrent)
        return envs, agent, Statistics(
            spaces, observations=config.normalise_observations, rewards=config.normalise_rewards
        )  # fmt: skip

    def problem(self, loss=None):
        return ActorCritic(self.config, *self.parts(), loss, SEED)

    def rollout(self):
        envs, agent, statistics = self.parts()
        bind(agent, self.u[: self.dim].clone())
        torch.manual_seed(SEED)
        how = {"t_max": T, "discount": self.config.discount}
        return Player(envs, agent, Actions(envs.action_space), statistics, **how).play(self.u[self.dim :], never)

    def reference(self, u):
        """The gradient of the loss of the whole rollout, which u_0 played, at u."""
        r, config, tail = self.rollout(), self.config, u[self.dim :]
        _, agent, statistics = self.parts()
        bind(agent, u[: self.dim].clone())
        scale = statistics.reward_scale(self.tail_after(r))
        state, logits, values = r.state, [], []
        for t in range(T + 1):
            seen = {
                path: statistics.normalise(tail, path, torch.from_numpy(x[t])) for path, x in r.observations.items()
            }
            one, value, state = agent(seen, state, torch.from_numpy(r.starts[t]))
            logits.append(one)
            values.append(value)
        if r.masks is not None:
            logits = [one.masked_fill(~torch.from_numpy(r.masks[t]), -math.inf) for t, one in enumerate(logits)]
        A, targets = self.advantages(r, scale, logits, values)
        at = [(t, i) for t in range(T) for i in range(N) if r.valid[t, i]]
        if config.normalise_advantages:
            chosen = np.array([A[t, i] for t, i in at])
            A = (A - chosen.mean()) / (chosen.std() + 1e-8)
        total = 0.0
        for t, i in at:
            p = logits[t][i].softmax(-1)
            log_p = p[r.actions[t, i]].log()
            entropy = -sum(one * one.log() for one in p if one > 0)
            gain = float(A[t, i]) * log_p
            if config.loss == "ppo":
                ratio = (log_p - r.log_p[t, i]).exp()
                gain = min(ratio * float(A[t, i]), ratio.clamp(0.8, 1.2) * float(A[t, i]))
            error = 0.5 * (float(targets[t, i]) - values[t][i]) ** 2
            total = total + (-gain + config.value_weight * error - config.entropy_weight * entropy) / len(at)
        grads = torch.autograd.grad(total, list(agent.parameters()), allow_unused=True)
        zeros = (torch.zeros_like(parameter) for parameter in agent.parameters())
        return torch.cat([(z if g is None else g).reshape(-1) for g, z in zip(grads, zeros, strict=True)])

    def tail_after(self, r):
        """What the statistics are when they have seen the rollout."""
        valid, tail = torch.from_numpy(r.valid), self.u[self.dim :]
        if not self.statistics.size:
            return tail
        seen = {path: torch.from_numpy(x[:-1])[valid] for path, x in r.observations.items()}
        return tail - self.statistics.gradient(tail, seen, torch.from_numpy(r.sums)[valid])

    def advantages(self, r, scale, logits, values):
        ends = {"terminated": r.terminated, "truncated": r.truncated, "valid": r.valid}
        rewards, old = r.rewards / np.float32(scale), r.values.numpy()
        if self.config.loss != "vtrace":
            return gae(rewards, old[:-1], old[-1], **ends, discount=0.9, gae_lambda=0.8)
        new = torch.stack(values).detach()
        log_p = torch.stack(logits)[:-1].detach().log_softmax(-1).gather(-1, r.actions.unsqueeze(-1)).squeeze(-1)
        ratios, values = (log_p - r.log_p).exp().numpy(), new.numpy()
        return vtrace_targets(ratios, rewards, values[:-1], values[-1], **ends, discount=0.9, gae_lambda=0.8)


@pytest.mark.parametrize("mask", [None, "info", "entry"])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("recurrent", ["none", "lstm", "gru"])
@pytest.mark.parametrize("loss", ["a2c", "ppo", "vtrace"])
def test_gradients_are_those_of_the_loss(loss, recurrent, normalise, mask):
    how = {"normalise_observations": normalise, "normalise_rewards": normalise, "normalise_advantages": normalise}
    world = World(dataclasses.replace(PLAIN, loss=loss, recurrent=recurrent, **how), mask)
    problem, dim = world.problem(), world.dim
    moved = world.u.clone()
    moved[:dim] += 0.1 * torch.randn(dim, generator=torch.Generator().manual_seed(2))
    for u in (world.u, moved):  # the rollout's second use: the policy has moved meanwhile
        g = problem.gradient(u.clone(), never)
        torch.testing.assert_close(g[:dim], world.reference(u), rtol=2e-3, atol=2e-5)


def test_statistics_are_learnt_once_from_each_rollout():
    world = World(dataclasses.replace(PLAIN, normalise_observations=True, normalise_rewards=True))
    problem, r, tail = world.problem(), world.rollout(), world.u[world.dim :]
    first, second = (problem.gradient(world.u, never)[world.dim :].clone() for _ in range(2))
    valid = torch.from_numpy(r.valid)
    seen, sums = torch.from_numpy(r.observations[""][:-1])[valid], torch.from_numpy(r.sums)[valid]
    torch.testing.assert_close(first, world.statistics.gradient(tail, {"": seen}, sums))
    assert not second.any()


def test_the_first_rewards_are_normalised_too():
    world = World(dataclasses.replace(PLAIN, normalise_observations=True, normalise_rewards=True))
    world.u[world.dim :] = 0  # nothing is known yet
    batches, r = [], world.rollout()
    problem = world.problem(lambda batch, output: batches.append(batch) or output.log_p.mean())
    problem.gradient(world.u, never)
    scale = r.sums[r.valid].std()
    assert scale != pytest.approx(1, rel=0.1)
    assert batches[0].rewards.abs().max() == pytest.approx(np.abs(r.rewards).max() / scale, rel=1e-3)


@pytest.mark.parametrize("recurrent", ["none", "lstm"])
def test_minibatches_are_all_of_a_rollout_again_and_again(recurrent):
    """With advantages that are not normalised, and a policy that stays, minibatches add up to the whole."""
    how = {"normalise_advantages": False, "recurrent": recurrent, "loss": "a2c"}
    world = World(dataclasses.replace(PLAIN, **how, batch=T, passes=2))
    sums, seen = torch.zeros(world.dim), []

    def loss(batch, output):
        seen.append(batch.actions.numel())
        return (torch.where(batch.valid, -batch.advantages * output.log_p, 0.0)).sum()

    problem = world.problem(loss)
    for _ in range(2 * N):
        sums += problem.gradient(world.u, never)
    assert sum(seen) == 2 * T * N
    told = problem.report()
    assert (told["rollouts"], told["updates"]) == (1, 2 * N)
    problem.gradient(world.u, never)
    assert problem.report()["rollouts"] == 1


def test_long_gradients_are_scaled_back():
    long = World(PLAIN).problem().gradient(World(PLAIN).u, never)
    most = 0.5 * float(long.norm())
    short = World(dataclasses.replace(PLAIN, max_gradient_norm=most)).problem().gradient(World(PLAIN).u, never)
    torch.testing.assert_close(short, 0.5 * long)


def test_interrupted_gradients_are_none_and_steps_count():
    world = World(PLAIN)
    problem, answers = world.problem(), iter([False, False, True])
    assert problem.gradient(world.u, lambda: next(answers)) is None
    assert problem.report()["agent_steps"] == 2 * N
    assert problem.gradient(world.u, never) is not None
    assert problem.report()["agent_steps"] < T * N  # some steps began an episode


@pytest.mark.parametrize("gives", [lambda b, o: 1.0, lambda b, o: o.log_p, lambda b, o: torch.zeros(())])
def test_a_loss_that_gives_no_scalar_ends_the_run(gives):
    world = World(PLAIN)
    with pytest.raises(ProblemError, match="scalar tensor"):
        world.problem(gives).gradient(world.u, never)
