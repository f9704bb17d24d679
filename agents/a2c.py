"""Advantage actor-critic as a DPSGD problem: what HSA2C is made of (Mohamad et al. 2022, section 4.2).

A stochastic gradient is that of the actor-critic loss on one minibatch of a rollout. The rollout is played with the
weights u_hat that the first of its gradients is computed at; later minibatches of it are used at newer weights, which
the clipped importance ratio allows for (Schulman et al. 2017). A minibatch is some time steps of all environments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from hsa2c.agents.fast_network import FastActorCritic, Features, join
from hsa2c.agents.losses import LossParts, actor_critic_gradient, clip_by_global_norm, explained_variance, normalise
from hsa2c.agents.returns import Bools, Floats, gae, n_step_returns
from hsa2c.agents.rollout import Environments, Player, Rollout
from hsa2c.agents.settings import AgentConfig, Precision
from hsa2c.dpsgd.problem import Problem

#: Under which names the parts of the loss are reported; in the order of `LossParts`.
_PARTS = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "policy/clip_fraction")


class A2C(Problem):
    """One actor-learner's view of the game: a `hsa2c.dpsgd.problem.Problem`.

    Args:
        config: The agent's settings.
        environments: What this process plays.
        num_actions: Of the game.
        precision: Of the hidden layers.
        seed: Of everything random here; environments have their own.
    """

    def __init__(
        self,
        config: AgentConfig,
        environments: Environments,
        num_actions: int,
        *,
        precision: Precision,
        seed: int,
    ) -> None:
        self._config = config
        self._environments = environments
        self._minibatches = config.updates_per_pass(environments.num_envs)
        self._network = FastActorCritic(num_actions, config.pixels, precision)
        self._random = np.random.default_rng(seed)
        self._player = Player(
            environments,
            self._network,
            t_max=config.t_max,
            num_actions=num_actions,
            seed=int(self._random.integers(2**31)),
            keep_features=config.convolutions == "acting",
        )
        self._targets: _Targets | None = None
        self._queue: list[NDArray[np.intp]] = []
        self._told = _Told()

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        """See `hsa2c.dpsgd.problem.Problem.gradient`."""
        self._network.read(u_hat)
        if not self._queue:
            rollout = self._player.play(interrupted)
            if rollout is None:
                return None
            self._targets = self._prepare(rollout)
        assert self._targets is not None
        begin = time.perf_counter()
        rollout, steps = self._player.rollout, self._queue.pop(0)
        parts, norm = self._backward(rollout, self._targets, steps)
        self._told.update(parts, norm, time.perf_counter() - begin)
        return self._network.g

    @property
    def gathers(self) -> bool:
        """See `hsa2c.dpsgd.problem.Problem.gathers`: with a rollout."""
        return not self._queue

    @property
    def gathered_for(self) -> int:
        """See `hsa2c.dpsgd.problem.Problem.gathered_for`."""
        return self._minibatches * self._config.passes

    def share(self, scratch: dict[str, Any]) -> None:
        """See `hsa2c.dpsgd.problem.Problem.share`: the network, which reads its weights before each use."""
        self._network = self._player.network = scratch.setdefault("network", self._network)

    def report(self) -> Mapping[str, Any]:
        """See `hsa2c.dpsgd.problem.Problem.report`; read by `hsa2c.agents.games.GameTracker`."""
        return self._told.take(self._player)

    def close(self) -> None:
        """See `hsa2c.dpsgd.problem.Problem.close`."""
        self._environments.close()

    def _prepare(self, rollout: Rollout) -> _Targets:
        """What to learn from a rollout, and the queue of its minibatches: time steps, all environments of each."""
        targets = _Targets(*estimate(rollout, self._config))
        for _ in range(self._config.passes):
            parts = np.split(self._random.permutation(self._config.t_max), self._minibatches)
            self._queue += [steps for steps in parts if rollout.valid[steps].any()]
        if not self._queue:  # a rollout of resets alone, which only tiny ones can be
            self._queue = [np.arange(0)]
        self._told.rollout(rollout, targets)
        return targets

    def _backward(self, rollout: Rollout, targets: _Targets, steps: NDArray[np.intp]) -> tuple[LossParts | None, float]:
        """The gradient of the loss on some time steps, into the network's g; its parts and its norm before clipping."""
        config, network = self._config, self._network
        chosen = np.flatnonzero(rollout.valid[steps])  # the ignored action of a reset is nothing to learn from
        if not chosen.size:
            network.g.zero_()
            return None, 0.0

        def of(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(values[steps].reshape(-1)[chosen])

        features = self._features(rollout, steps)
        logits, values, hidden = network.heads(features)
        advantages = of(targets.advantages)
        to_logits, to_values, parts = actor_critic_gradient(
            logits[chosen],
            values[chosen],
            actions=of(rollout.actions),
            behaviour_log_prob=of(rollout.log_probs),
            advantages=normalise(advantages) if config.normalise_advantages else advantages,
            returns=of(targets.returns),
            policy_clip=config.policy_clip,
            entropy_weight=config.entropy_weight,
            value_weight=config.value_weight,
        )
        network.backward(
            features,
            hidden,
            torch.zeros_like(logits).index_copy_(0, torch.from_numpy(chosen), to_logits),
            torch.zeros_like(values).index_copy_(0, torch.from_numpy(chosen), to_values),
        )
        limit = np.inf if config.max_gradient_norm is None else config.max_gradient_norm
        return parts, clip_by_global_norm(network.g, limit)

    def _features(self, rollout: Rollout, steps: NDArray[np.intp]) -> Features:
        """What the convolutions make of all observations of some time steps."""
        # Paper: the whole gradient is at u_hat; with "acting" that of the convolutions is a rollout staler, for speed.
        if self._config.convolutions == "acting":
            acted: Features = join([rollout.features[step] for step in steps])
            return acted
        seen = rollout.observations
        observations = seen[steps[0]] if len(steps) == 1 else seen[steps].reshape(-1, *seen.shape[2:])
        levels = join([rollout.levels[step] for step in steps])
        features: Features = self._network.at(torch.from_numpy(observations), levels)
        return features


def estimate(rollout: Rollout, config: AgentConfig) -> tuple[Floats, Floats]:
    """Advantages and returns of a rollout, float32 [t_max, num_envs] each, as `config.returns` says."""
    seen = (rollout.rewards, rollout.values, rollout.bootstrap_value)
    ends = _Ends(terminated=rollout.terminated, truncated=rollout.truncated, valid=rollout.valid)
    if config.returns == "gae":
        return gae(*seen, **ends, discount=config.discount, gae_lambda=config.gae_lambda)
    returns = n_step_returns(*seen, **ends, discount=config.discount)
    return returns - rollout.values, returns


class _Ends(TypedDict):
    terminated: Bools
    truncated: Bools
    valid: Bools


class _Targets(NamedTuple):
    """What to learn from a rollout, float32 [t_max, num_envs] each."""

    advantages: Floats
    returns: Floats


class _Told:
    """Sums since the last report."""

    def __init__(self) -> None:
        self._clear()
        self._agent_steps = 0
        self._emulator_s = 0.0
        self._acting_s = 0.0

    def _clear(self) -> None:
        self._updates = 0
        self._norm = 0.0
        self._parts = torch.zeros(len(_PARTS))
        self._learnt = 0
        self._rollouts = 0
        self._rollout_sums: dict[str, float] = {}
        self._learning_s = 0.0

    def update(self, parts: LossParts | None, norm: float, seconds: float) -> None:
        """One gradient was computed."""
        self._updates += 1
        self._learning_s += seconds
        self._norm += norm
        if parts is not None:
            self._parts += torch.stack(parts)
            self._learnt += 1

    def rollout(self, rollout: Rollout, targets: _Targets) -> None:
        """One rollout was played."""
        if not rollout.valid.any():
            return
        self._rollouts += 1
        values = torch.from_numpy(rollout.values[rollout.valid])
        returns = torch.from_numpy(targets.returns[rollout.valid])
        for key, value in (
            ("value/mean", float(values.mean())),
            ("value/explained_variance", explained_variance(values, returns)),
        ):
            self._rollout_sums[key] = self._rollout_sums.get(key, 0.0) + value

    def _update_sums(self) -> dict[str, float]:
        sums = {"gradient/norm": self._norm} if self._updates else {}
        if self._learnt:
            sums |= dict(zip(_PARTS, self._parts.tolist(), strict=True))
        return sums

    def take(self, player: Player) -> dict[str, Any]:
        """The report, as JSON values."""
        games, player.games = player.games, []
        report = {
            "agent_steps": player.agent_steps - self._agent_steps,
            "updates": self._updates,
            "games": [[game.score, game.frames] for game in games],
            "update_sums": self._update_sums(),
            "rollouts": self._rollouts,
            "rollout_sums": self._rollout_sums,
            "seconds": {
                "emulator": player.emulator_s - self._emulator_s,
                "acting": player.acting_s - self._acting_s,
                "learning": self._learning_s,
            },
        }
        self._agent_steps = player.agent_steps
        self._emulator_s, self._acting_s = player.emulator_s, player.acting_s
        self._clear()
        return report
