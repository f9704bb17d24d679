"""Advantage actor-critic as a DPSGD problem: what HSA2C is made of (Mohamad et al. 2022, section 4.2).

A stochastic gradient is that of the actor-critic loss on one minibatch of a rollout. The rollout is played with the
weights u_hat that the first of its gradients is computed at; later minibatches of it are used at newer weights, which
the clipped importance ratio allows for (Schulman et al. 2017).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from agents.losses import LossParts, actor_critic_loss, clip_by_global_norm, explained_variance, normalise
from agents.network import ActorCritic, autocast, bind, bind_gradients, num_parameters
from agents.returns import Bools, Floats, gae, n_step_returns
from agents.rollout import Environments, Player, Rollout
from agents.settings import OBSERVATION_SHAPE, AgentConfig, Precision


class A2C:
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
        self._network = ActorCritic(num_actions, config.pixels)
        self._g = torch.zeros(num_parameters(self._network))
        self._bound_to = 0
        self._precision = precision
        self._random = np.random.default_rng(seed)
        self._player = Player(
            environments, self._network, t_max=config.t_max, precision=precision, seed=int(self._random.integers(2**31))
        )
        self._samples: _Samples | None = None
        self._queue: list[NDArray[np.intp]] = []
        self._told = _Told()

    def gradient(self, u_hat: torch.Tensor, interrupted: Callable[[], bool]) -> torch.Tensor | None:
        """See `hsa2c.dpsgd.problem.Problem.gradient`."""
        self._use(u_hat)
        if not self._queue:
            rollout = self._player.play(interrupted)
            if rollout is None:
                return None
            self._samples = self._prepare(rollout)
        assert self._samples is not None
        begin = time.perf_counter()
        parts, norm = self._backward(self._samples, self._queue.pop(0))
        self._told.update(parts, norm, time.perf_counter() - begin)
        return self._g

    def report(self) -> Mapping[str, Any]:
        """See `hsa2c.dpsgd.problem.Problem.report`; read by `agents.games.GameTracker`."""
        return self._told.take(self._player)

    def close(self) -> None:
        """See `hsa2c.dpsgd.problem.Problem.close`."""
        self._environments.close()

    def _use(self, u_hat: torch.Tensor) -> None:
        """Make u_hat the network's weights; it is nearly always the same memory."""
        if u_hat.data_ptr() != self._bound_to:
            bind(self._network, u_hat)
            bind_gradients(self._network, self._g)
            self._bound_to = u_hat.data_ptr()

    def _prepare(self, rollout: Rollout) -> _Samples:
        """Flatten a rollout into samples, and queue the minibatches of its passes."""
        advantages, returns = estimate(rollout, self._config)
        samples = _Samples(rollout, advantages, returns)
        chosen = np.flatnonzero(rollout.valid)  # the ignored action of a reset is nothing to learn from
        for _ in range(self._config.passes):
            parts = np.array_split(self._random.permutation(chosen), self._config.minibatches)
            self._queue += [part for part in parts if part.size]
        if not self._queue:  # a rollout of resets alone, which only tiny ones can be
            self._queue = [np.arange(0)]
        self._told.rollout(samples, chosen)
        return samples

    def _backward(self, samples: _Samples, chosen: NDArray[np.intp]) -> tuple[LossParts | None, float]:
        """The gradient of the loss on the chosen samples, into `self._g`; its parts and its norm before clipping."""
        config = self._config
        self._g.zero_()
        if not chosen.size:
            return None, 0.0
        advantages = torch.from_numpy(samples.advantages[chosen])
        with autocast(self._precision):
            logits, values = self._network(torch.from_numpy(samples.observations[chosen]))
        loss, parts = actor_critic_loss(
            logits,
            values,
            actions=torch.from_numpy(samples.actions[chosen]),
            behaviour_log_prob=torch.from_numpy(samples.log_probs[chosen]),
            advantages=normalise(advantages) if config.normalise_advantages else advantages,
            returns=torch.from_numpy(samples.returns[chosen]),
            policy_clip=config.policy_clip,
            entropy_weight=config.entropy_weight,
            value_weight=config.value_weight,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        limit = np.inf if config.max_gradient_norm is None else config.max_gradient_norm
        return parts, clip_by_global_norm(self._g, limit)


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


class _Samples:
    """A rollout as t_max * num_envs samples."""

    def __init__(self, rollout: Rollout, advantages: Floats, returns: Floats) -> None:
        self.observations = rollout.observations[:-1].reshape(-1, *OBSERVATION_SHAPE)
        self.actions = rollout.actions.reshape(-1)
        self.log_probs = rollout.log_probs.reshape(-1)
        self.values = rollout.values.reshape(-1)
        self.advantages = advantages.reshape(-1)
        self.returns = returns.reshape(-1)


class _Told:
    """Sums since the last report."""

    def __init__(self) -> None:
        self._clear()
        self._agent_steps = 0
        self._emulator_s = 0.0
        self._acting_s = 0.0

    def _clear(self) -> None:
        self._updates = 0
        self._sums: dict[str, float] = {}
        self._rollouts = 0
        self._rollout_sums: dict[str, float] = {}
        self._learning_s = 0.0

    def update(self, parts: LossParts | None, norm: float, seconds: float) -> None:
        """One gradient was computed."""
        self._updates += 1
        self._learning_s += seconds
        values = {"gradient/norm": norm}
        if parts is not None:
            values |= {
                "loss/policy": float(parts.policy_loss),
                "loss/value": float(parts.value_loss),
                "policy/entropy": float(parts.entropy),
                "policy/approx_kl": float(parts.approx_kl),
                "policy/clip_fraction": float(parts.clip_fraction),
            }
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def rollout(self, samples: _Samples, chosen: NDArray[np.intp]) -> None:
        """One rollout was played."""
        if not chosen.size:
            return
        self._rollouts += 1
        values = torch.from_numpy(samples.values[chosen])
        returns = torch.from_numpy(samples.returns[chosen])
        for key, value in (
            ("value/mean", float(values.mean())),
            ("value/explained_variance", explained_variance(values, returns)),
        ):
            self._rollout_sums[key] = self._rollout_sums.get(key, 0.0) + value

    def take(self, player: Player) -> dict[str, Any]:
        """The report, as JSON values."""
        games, player.games = player.games, []
        report = {
            "agent_steps": player.agent_steps - self._agent_steps,
            "updates": self._updates,
            "games": [[game.score, game.frames] for game in games],
            "update_sums": self._sums,
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
