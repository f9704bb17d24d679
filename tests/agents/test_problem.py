"""The Atari problem against a reference that knows what environments saw, and adds up one sample after the other."""

import json
from itertools import chain

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from hsa2c.agents.fast_network import FastActorCritic
from hsa2c.agents.network import ActorCritic, initial_vector
from hsa2c.agents.problem import AtariProblem
from hsa2c.agents.settings import AgentConfig

ACTIONS = 3
SMALL = {"num_envs": 2, "t_max": 4, "passes": 1, "minibatches": 1, "policy_clip": 0.2, "precision": "float32"}
SMALL |= {
    "convolutions": "fresh",
    "pixels": "raw",
}  # whole observations here are of one grey level, which is all that they say


def never():
    return False


def vector(seed=0):
    return initial_vector(ACTIONS, seed, "torch")


def agent_of(envs, seed=3, **settings):
    config = AgentConfig(**(SMALL | {"num_envs": envs.num_envs} | settings))
    return AtariProblem(config, envs, ACTIONS, precision="float32", seed=seed), config


@pytest.fixture
def learnt(monkeypatch, levels):
    """The grey levels (60 env + clock) of each minibatch that was learnt from, in order."""
    seen = []
    backward = FastActorCritic.backward

    def spy(self, features, hidden, to_logits, to_values):
        chosen = to_values != 0
        seen.append(levels(features.pixels[chosen].numpy()).astype(int).tolist())
        return backward(self, features, hidden, to_logits, to_values)

    monkeypatch.setattr(FastActorCritic, "backward", spy)
    return seen


# The reference


class Sample:
    """One valid step of one environment, with what the loss needs of it."""

    def __init__(self, log, t, i, policy, config):
        before, actions, _ = log[t]
        self.observation, self.action = before[i], int(actions[i])
        log_pi, value = policy(self.observation)
        self.behaviour_log_prob = float(log_pi[self.action])
        self.value = float(value)
        lam = config.gae_lambda if config.returns == "gae" else 1.0
        self.advantage = slow_advantage(log, t, i, lambda obs: float(policy(obs)[1]), config.discount, lam)
        self.returns = self.advantage + self.value


def slow_advantage(log, t, i, V, gamma, lam):
    """Sum of (gamma lambda)^k delta to the end of the episode or the log; lambda = 1 makes it n-step return - V."""
    total, weight = 0.0, 1.0
    for before, _, step in log[t:]:
        if not step.valid[i]:
            break
        following = 0.0 if step.terminated[i] else V(step.obs[i])
        total += weight * (float(step.reward[i]) + gamma * following - V(before[i]))
        weight *= gamma * lam
        if step.terminated[i] or step.truncated[i]:
            break
    return total


def plain_network(v):
    """An ordinary network with ordinary gradients."""
    module = ActorCritic(ACTIONS, "raw")
    vector_to_parameters(v.clone(), module.parameters())
    return module


def policy_of(module):
    """Observation to log pi and V."""

    def policy(observation):
        with torch.no_grad():
            logits, value = module(torch.from_numpy(observation[None]))
        return torch.log_softmax(logits[0], 0), value[0]

    return policy


def samples_of(log, v_acted, config):
    """Grey level to sample, of all valid steps of a rollout."""
    policy = policy_of(plain_network(v_acted))
    return {
        int(log[t][0][i, 0, 0, 0]): Sample(log, t, i, policy, config)
        for t in range(len(log))
        for i in range(config.num_envs)
        if log[t][2].valid[i]
    }


def correct(samples, log, v, config):
    """Give samples the advantages and targets of V-trace at v, by its recursion."""
    policy, last = policy_of(plain_network(v)), len(log) - 1

    def V(observation):
        return float(policy(observation)[1])

    def parts(t, i):
        """rho, delta, V of what follows, and whether the episode or the rollout ends there."""
        before, actions, step = log[t]
        log_pi = policy(before[i])[0][int(actions[i])]
        rho = min(1.0, float(torch.exp(log_pi - samples[int(before[i, 0, 0, 0])].behaviour_log_prob)))
        following = 0.0 if step.terminated[i] else V(step.obs[i])
        delta = rho * (float(step.reward[i]) + config.discount * following - V(before[i]))
        return rho, delta, following, step.terminated[i] or step.truncated[i] or t == last

    def target(t, i):
        rho, delta, following, over = parts(t, i)
        later = 0.0 if over else config.discount * config.gae_lambda * rho * (target(t + 1, i) - following)
        return V(log[t][0][i]) + delta + later

    for t, (before, _, step) in enumerate(log):
        for i in np.flatnonzero(step.valid):
            rho, delta, following, over = parts(t, i)
            sample = samples[int(before[i, 0, 0, 0])]
            gain = 0.0 if over else rho * config.discount * (target(t + 1, i) - following)
            sample.advantage, sample.returns = delta + gain, target(t, i)
    return samples


def slow_gradient(v, samples, config):
    """The gradient of the mean loss of some samples at v, and the loss of value and the entropy."""
    module = plain_network(v)
    advantages = [sample.advantage for sample in samples]
    if config.normalise_advantages:
        mean, deviation = np.mean(advantages), np.std(advantages)
        advantages = [(a - mean) / deviation for a in advantages]
    loss, value_losses, entropies = 0.0, [], []
    for sample, advantage in zip(samples, advantages, strict=True):
        logits, value = module(torch.from_numpy(sample.observation[None]))
        pi = torch.softmax(logits[0], 0)
        if config.policy_clip is None or config.loss != "ppo":
            of_policy = -torch.log(pi[sample.action]) * advantage
        else:
            ratio = pi[sample.action] / np.exp(sample.behaviour_log_prob)
            clipped = ratio.clamp(1 - config.policy_clip, 1 + config.policy_clip)
            of_policy = -torch.minimum(ratio * advantage, clipped * advantage)
        value_losses.append(0.5 * (value[0] - sample.returns) ** 2)
        entropies.append(-(pi * torch.log(pi)).sum())
        loss = loss + of_policy + config.value_weight * value_losses[-1] - config.entropy_weight * entropies[-1]
    (loss / len(samples)).backward()
    gradient = parameters_to_vector([parameter.grad for parameter in module.parameters()])
    return gradient, *(torch.stack(parts).mean().item() for parts in (value_losses, entropies))


def assert_close(gradient, expected):
    scale = float(expected.abs().max())
    assert scale > 1e-4, "a comparison with nothing"
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=2e-5 * scale)


# Gradients


@pytest.mark.parametrize(
    "settings",
    [
        {"returns": "gae", "normalise_advantages": False},
        {"returns": "gae", "normalise_advantages": True},
        {"returns": "n-step", "normalise_advantages": False, "policy_clip": None},
        {"returns": "n-step", "normalise_advantages": True, "entropy_weight": 0.5, "value_weight": 3.0},
        {"returns": "gae", "gae_lambda": 0.5, "discount": 0.7, "normalise_advantages": False},
        {"loss": "a2c", "returns": "n-step"},
    ],
    ids=lambda settings: " ".join(f"{key}={value}" for key, value in settings.items()),
)
def test_gradient_equals_the_slow_reference(make_envs, settings):
    envs, v = make_envs([3, None]), vector()
    agent, config = agent_of(envs, t_max=6, max_gradient_norm=None, **settings)
    gradient = agent.gradient(v, never)
    samples = samples_of(envs.log, v, config)
    assert len(samples) == 11  # of 12 steps one is the reset of environment 0
    expected, value_loss, entropy = slow_gradient(v, list(samples.values()), config)
    assert_close(gradient, expected)
    report = agent.report()
    assert report["update_sums"]["gradient/norm"] == pytest.approx(float(expected.norm()), rel=1e-3)
    assert report["update_sums"]["loss/value"] == pytest.approx(value_loss, rel=1e-3)
    assert report["update_sums"]["policy/entropy"] == pytest.approx(entropy, rel=1e-4)


def test_truncated_episode_is_bootstrapped(make_envs):
    envs, v = make_envs([2, None], truncates=True), vector()
    agent, config = agent_of(envs, returns="n-step", normalise_advantages=False, max_gradient_norm=None)
    gradient = agent.gradient(v, never)
    assert envs.log[1][2].truncated.tolist() == [True, False]
    expected, *_ = slow_gradient(v, list(samples_of(envs.log, v, config).values()), config)
    assert_close(gradient, expected)


@pytest.mark.parametrize("loss", ["a2c", "ppo", "vtrace"])
def test_later_minibatches_know_the_policy_that_acted_if_their_loss_does(make_envs, learnt, loss):
    envs, v = make_envs([3, None]), vector()
    how = {"minibatches": 2, "passes": 2, "policy_clip": 0.1, "max_gradient_norm": None, "gae_lambda": 0.8}
    agent, config = agent_of(envs, loss=loss, **how)
    first = agent.gradient(v, never).clone()
    samples = samples_of(envs.log, v, config)
    moved = v - 3e-3 * first.sign()
    gradients = [first, *(agent.gradient(moved, never).clone() for _ in range(3))]
    assert len(envs.log) == 4, "four gradients of one rollout"
    batches = list(learnt)
    for gradient, batch, at in zip(gradients, batches, [v, moved, moved, moved], strict=True):
        if loss == "vtrace":
            correct(samples, envs.log, at, config)
            assert len({level // 60 for level in batch}) == 1, "a whole environment"
        expected, *_ = slow_gradient(at, [samples[level] for level in batch], config)
        assert_close(gradient, expected)
    report = agent.report()
    if loss == "ppo":
        assert report["update_sums"]["policy/clip_fraction"] > 0, "the ratio never left the clip: a weak test"
    assert report["update_sums"]["policy/approx_kl"] > 0


def test_features_of_the_acting_pass_are_older_and_heads_are_not(make_envs):
    """At the weights that acted there is no difference; later only the convolutions' are of then."""
    v, moved = vector(), vector(1)
    gradients = {}
    for convolutions in ("acting", "fresh"):
        agent, _ = agent_of(make_envs([3, None]), passes=3, convolutions=convolutions, max_gradient_norm=None)
        heads_moved = v.clone()
        heads_moved[-4:] = moved[-4:]  # the value's bias and the last of its weights
        gradients[convolutions] = [agent.gradient(at, never).clone() for at in (v, heads_moved, moved)]
    acting, fresh = gradients["acting"], gradients["fresh"]
    torch.testing.assert_close(acting[0], fresh[0])
    torch.testing.assert_close(acting[1], fresh[1])
    assert (fresh[1] != fresh[0]).any()
    assert not torch.allclose(acting[2], fresh[2], rtol=0.01)


def test_problems_that_share_their_scratch_compute_as_they_do_alone(make_envs):
    scratch, lengths = {}, ([3, None], [None, 2])
    alone = [agent_of(make_envs(each), minibatches=2)[0] for each in lengths]
    together = [agent_of(make_envs(each), minibatches=2)[0] for each in lengths]
    for problem in together:
        problem.share(scratch)
    for at in (vector(), vector(1), vector(2)):  # the third begins another rollout
        assert [problem.gathers for problem in alone] == [problem.gathers for problem in together]
        for mine, theirs in zip(alone, together, strict=True):
            expected = mine.gradient(at, never).clone()
            assert torch.equal(theirs.gradient(at, never), expected)
    assert together[0].gradient(vector(), never) is together[1].gradient(vector(), never)


@pytest.mark.parametrize("minibatches", [1, 2, 4])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("convolutions", ["acting", "fresh"])
def test_each_pass_uses_every_valid_sample_once(make_envs, learnt, minibatches, passes, convolutions):
    envs = make_envs([2, None])  # of 8 steps one is a reset
    agent, _ = agent_of(envs, minibatches=minibatches, passes=passes, convolutions=convolutions)
    for _ in range(passes * minibatches):
        agent.gradient(vector(), never)
    assert len(envs.log) == 4
    assert len(learnt) == passes * minibatches
    for batch in learnt:  # all environments of a time step stay together
        assert {level for level in batch if level < 60} - {2} == {level - 60 for level in batch if level >= 60} - {2}
    orders = [list(chain(*learnt[k : k + minibatches])) for k in range(0, len(learnt), minibatches)]
    for order in orders:
        assert sorted(order) == [0, 1, 3, 60, 61, 62, 63]
    assert passes == 1 or len({tuple(order) for order in orders}) > 1, "each pass has an order of its own"
    agent.gradient(vector(), never)
    assert len(envs.log) == 8, "the next gradient needs a new rollout"


def test_resets_alone_give_a_zero_gradient(make_envs):
    agent, _ = agent_of(make_envs([1]), t_max=1)
    v = vector()
    assert agent.gradient(v, never).norm() > 0
    for passes in (1, 2):
        agent, _ = agent_of(make_envs([1]), t_max=1, passes=passes)
        for _ in range(passes):
            assert agent.gradient(v, never).norm() > 0
        agent.report()
        assert not agent.gradient(v, never).any(), "the step was the reset"
        report = agent.report()
        assert (report["agent_steps"], report["updates"], report["rollouts"]) == (0, 1, 0)
        assert report["update_sums"] == {"gradient/norm": 0.0}
        assert agent.gradient(v, never).norm() > 0


def test_long_gradient_is_scaled_back(make_envs):
    def gradient(limit):
        agent, _ = agent_of(make_envs([3, None]), max_gradient_norm=limit)
        return agent.gradient(vector(), never).clone(), agent.report()["update_sums"]["gradient/norm"]

    free, norm = gradient(None)
    assert norm == pytest.approx(float(free.norm()), rel=1e-5)
    scaled, reported = gradient(norm / 10)
    assert reported == pytest.approx(norm, rel=1e-5), "the norm before it was scaled"
    torch.testing.assert_close(scaled, free / 10, rtol=1e-4, atol=0)
    unscaled, _ = gradient(norm * 10)
    torch.testing.assert_close(unscaled, free, rtol=0, atol=0)


def test_gradient_does_not_change_the_weights_and_knows_where_they_lie(make_envs):
    agent, _ = agent_of(make_envs([None, None]), t_max=1)
    v = vector()
    copies = [v.clone(), vector(1)]
    before = [copy.clone() for copy in copies]
    gradients = [agent.gradient(copy, never).clone() for copy in copies]
    for copy, old in zip(copies, before, strict=True):
        torch.testing.assert_close(copy, old, rtol=0, atol=0)
    fresh, _ = agent_of(make_envs([None, None]), t_max=1)
    torch.testing.assert_close(gradients[0], fresh.gradient(v, never), rtol=0, atol=0)
    assert (gradients[0] - gradients[1]).norm() > 0


def test_same_seed_same_gradients(make_envs):
    def gradients(seed):
        agent, _ = agent_of(make_envs([3, None]), seed=seed, minibatches=2)
        return torch.stack([agent.gradient(vector(), never).clone() for _ in range(4)])

    torch.testing.assert_close(gradients(1), gradients(1), rtol=0, atol=0)
    assert (gradients(1) != gradients(2)).any()


def test_interrupted_rollout_gives_none_and_the_next_call_plays_anew(make_envs):
    envs, v = make_envs([None, None]), vector()
    agent, config = agent_of(envs, max_gradient_norm=None)
    assert agent.gradient(v, lambda: True) is None
    assert envs.log == []
    answers = iter([False, False, True])
    assert agent.gradient(v, lambda: next(answers)) is None
    assert len(envs.log) == 2
    gradient = agent.gradient(v, never)
    expected, *_ = slow_gradient(v, list(samples_of(envs.log[2:], v, config).values()), config)
    assert_close(gradient, expected)


# Reports


def test_report_tells_what_happened_since_the_last_one(make_envs):
    envs = make_envs([2, None])
    agent, _ = agent_of(envs, minibatches=2)
    empty = agent.report()
    assert (empty["agent_steps"], empty["updates"], empty["games"], empty["rollouts"]) == (0, 0, [], 0)
    assert empty["update_sums"] == empty["rollout_sums"] == {}
    assert set(empty["seconds"].values()) == {0.0}

    agent.gradient(vector(), never)
    first = json.loads(json.dumps(agent.report()))
    game = next(game for *_, step in envs.log for game in step.games)
    assert first["games"] == [[game.score, 8]]
    assert (first["agent_steps"], first["updates"], first["rollouts"]) == (7, 1, 1)
    assert {"loss/policy", "loss/value", "policy/entropy", "gradient/norm"} < first["update_sums"].keys()
    assert all(seconds > 0 for seconds in first["seconds"].values())

    agent.gradient(vector(), never)
    second = agent.report()
    assert (second["agent_steps"], second["updates"], second["rollouts"], second["games"]) == (0, 1, 0, [])
    assert second["rollout_sums"] == {}
    assert second["seconds"]["emulator"] == 0
    assert second["seconds"]["learning"] > 0


def test_report_in_the_middle_of_a_rollout_tells_the_steps_so_far(make_envs):
    agent, _ = agent_of(make_envs([3, None]), passes=2)
    said = []

    def asked():
        said.append(agent.report())
        return False

    for _ in range(2):
        agent.gradient(vector(), asked)
    said.append(agent.report())
    assert [report["agent_steps"] for report in said] == [0, 2, 2, 2, 1], "the last step of one is a reset"


def test_report_of_a_rollout(make_envs):
    envs, v = make_envs([None, None]), vector()
    agent, config = agent_of(envs, returns="n-step")
    agent.gradient(v, never)
    samples = list(samples_of(envs.log, v, config).values())
    values = np.array([sample.value for sample in samples])
    returns = np.array([sample.returns for sample in samples])
    sums = agent.report()["rollout_sums"]
    assert sums["value/mean"] == pytest.approx(values.mean(), rel=1e-3)
    expected = 1 - (returns - values).var() / returns.var()
    assert sums["value/explained_variance"] == pytest.approx(expected, abs=1e-3)


def test_close_ends_the_environments(make_envs):
    envs = make_envs([None])
    agent, _ = agent_of(envs)
    agent.close()
    assert envs.closed
