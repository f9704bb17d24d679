"""An Atari agent as a DPSGD problem: what HSA2C is made of (Mohamad et al. 2022, section 4.2).

A stochastic gradient is that of an actor-critic loss on one minibatch of a rollout. The rollout is played with the
weights u_hat that the first of its gradients is computed at; later minibatches of it are used at newer weights, which
the ratios of ppo and vtrace allow for, and a2c does not. A minibatch is some time steps of all environments; for
vtrace, all time steps of some.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from hsa2c.agents.fast_network import FastActorCritic, Features, join
from hsa2c.agents.losses import (
    LossParts,
    action_log_prob,
    actor_critic_gradient,
    clip_by_global_norm,
    explained_variance,
    normalise,
)
from hsa2c.agents.returns import Bools, Floats, gae, n_step_returns, vtrace_targets
from hsa2c.agents.rollout import Environments, Player, Rollout
from hsa2c.agents.settings import AgentConfig, Precision
from hsa2c.dpsgd.problem import Problem

#: Under which names the parts of the loss are reported; in the order of `LossParts`.
_PARTS = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "policy/clip_fraction")


#: Of the arrays of a rollout, [t_max, num_envs]: which time steps of which environments.
_Part = tuple["slice | NDArray[np.intp]", "slice | NDArray[np.intp]"]
_ALL = slice(None)


class AtariProblem(Problem):
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
        self._queue: list[_Part] = []
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
        parts, norm = self._backward(self._player.rollout, self._targets, self._queue.pop(0))
        self._told.update(parts, norm, time.perf_counter() - begin)
        return self._network.g

    @property
    def gathers(self) -> bool:
        """See `hsa2c.dpsgd.problem.Problem.gathers`: with a rollout."""
        return not self._queue

    @property
    def gathered_for(self) -> int:
        """See `hsa2c.dpsgd.problem.Problem.gathered_for`."""
        return int(self._config.updates_per_pass(self._environments.num_envs)) * self._config.passes

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
        """What to learn from a rollout, and the queue of its minibatches."""
        targets = _Targets(*estimate(rollout, self._config))
        sequences = self._config.loss == "vtrace"
        minibatches = self._config.updates_per_pass(self._environments.num_envs)
        for _ in range(self._config.passes):
            dealt = self._random.permutation(rollout.valid.shape[1 if sequences else 0])
            for chosen in np.array_split(dealt, minibatches):
                part: _Part = (_ALL, chosen) if sequences else (chosen, _ALL)
                self._queue += [part] if rollout.valid[part].any() else []
        if not self._queue:  # a rollout of resets alone, which only tiny ones can be
            self._queue = [(slice(0), _ALL)]
        self._told.rollout(rollout, targets)
        return targets

    def _backward(self, rollout: Rollout, targets: _Targets, part: _Part) -> tuple[LossParts | None, float]:
        """The gradient of the loss on a minibatch, into the network's g; its parts and its norm before clipping."""
        config, network = self._config, self._network
        chosen = np.flatnonzero(rollout.valid[part])  # the ignored action of a reset is nothing to learn from
        if not chosen.size:
            network.g.zero_()
            return None, 0.0

        def of(values: NDArray[Any]) -> torch.Tensor:
            return torch.from_numpy(values[part].reshape(-1)[chosen])

        features = self._features(rollout, part)
        logits, values, hidden = network.heads(features)
        if config.loss == "vtrace":
            self._correct(targets, rollout, part, logits, values)
        advantages = of(targets.advantages)
        to_logits, to_values, parts = actor_critic_gradient(
            logits[chosen],
            values[chosen],
            actions=of(rollout.actions),
            behaviour_log_prob=of(rollout.log_probs),
            advantages=normalise(advantages) if config.normalise_advantages else advantages,
            returns=of(targets.returns),
            policy_clip=config.policy_clip if config.loss == "ppo" else None,
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

    def _correct(
        self, targets: _Targets, rollout: Rollout, part: _Part, logits: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Those of a minibatch anew, by what the network says of it now."""
        config, actions = self._config, rollout.actions[part]
        shape = actions.shape
        log_prob = action_log_prob(logits, torch.from_numpy(actions.reshape(-1))).numpy().reshape(shape)
        _, bootstrap_value = self._network(torch.from_numpy(rollout.observations[-1][part[1]]))
        targets.advantages[part], targets.returns[part] = vtrace_targets(
            np.exp(log_prob - rollout.log_probs[part]),
            rollout.rewards[part],
            values.numpy().reshape(shape),
            bootstrap_value.numpy(),
            terminated=rollout.terminated[part],
            truncated=rollout.truncated[part],
            valid=rollout.valid[part],
            discount=config.discount,
            gae_lambda=config.gae_lambda if config.returns == "gae" else 1.0,
        )

    def _features(self, rollout: Rollout, part: _Part) -> Features:
        """What the convolutions make of all observations of a minibatch."""
        steps, environments = part
        numbers = np.arange(len(rollout.levels))[steps]
        # Paper: the whole gradient is at u_hat; with "acting" that of the convolutions is a rollout staler, for speed.
        if self._config.convolutions == "acting":
            acted: Features = join([rollout.features[step].some(environments) for step in numbers])
            return acted
        seen = rollout.observations[:-1]
        one = len(numbers) == 1  # a view then
        observations = seen[numbers[0]][environments] if one else seen[part].reshape(-1, *seen.shape[2:])
        levels = join([rollout.levels[step].some(environments) for step in numbers])
        made: Features = self._network.at(torch.from_numpy(observations), levels)
        return made


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
