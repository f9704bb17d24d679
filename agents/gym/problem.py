"""An actor-critic in any environment as a DPSGD problem: a gradient is that of a loss on a minibatch of a rollout."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsa2c.agents.gym import closed_form
from hsa2c.agents.gym.distributions import Actions
from hsa2c.agents.gym.losses import LOSSES, Batch, Loss, Output, scalar
from hsa2c.agents.gym.mlp import MLP, has_towers
from hsa2c.agents.gym.networks import Agent, to_tensors
from hsa2c.agents.gym.rollout import Player, Rollout
from hsa2c.agents.gym.settings import ActorCriticConfig, learns_from_sequences, passes_of, rollout_of
from hsa2c.agents.gym.statistics import Statistics
from hsa2c.agents.network import bind, num_parameters, parameter_views
from hsa2c.agents.returns import gae
from hsa2c.dpsgd.problem import Problem
from hsa2c.envs.steps import Environments


class ActorCritic(Problem):
    """One actor-learner's view: a `hsa2c.dpsgd.problem.Problem`.

    Args:
        config: Section ``agent``.
        envs: What this process plays.
        agent: The network; its parameters become views of u_hat.
        statistics: What is normalised, and where that stands in v.
        loss: One of the user's own; None: the configured one.
        seed: Of actions and minibatches.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        envs: Environments,
        agent: Agent,
        statistics: Statistics,
        loss: Loss | None,
        seed: int,
    ) -> None:
        torch.manual_seed(seed)
        self._random = np.random.default_rng(seed)
        self._config, self._envs, self._agent, self._statistics = config, envs, agent, statistics
        self._loss = loss
        self._actions = Actions(envs.action_space, config.bounds)
        self._dim = num_parameters(agent)
        self._g = torch.zeros(self._dim + statistics.size)
        self._mlp = MLP(agent, statistics, self._g[: self._dim]) if has_towers(agent) else None
        how: dict[str, Any] = {"t_max": rollout_of(config), "discount": config.discount, "mlp": self._mlp}
        self._player = Player(envs, agent, self._actions, statistics, **how)
        self._views = list(zip(agent.parameters(), parameter_views(agent, self._g[: self._dim]), strict=True))
        self._sequences = learns_from_sequences(config)
        self._queue: list[NDArray[np.intp]] = []
        self._bound: int | None = None
        self._scale = 1.0
        self._told = _Told()

    def gradient(self, u_hat: Tensor, interrupted: Callable[[], bool]) -> Tensor | None:
        """See `Problem.gradient`."""
        if u_hat.data_ptr() != self._bound:
            bind(self._agent, u_hat[: self._dim])
            if self._mlp is not None:
                self._mlp.bind()
            self._bound = u_hat.data_ptr()
        tail = u_hat[self._dim :]
        self._g.zero_()
        if not self._queue:
            begin = time.perf_counter()
            rollout = self._player.play(tail, interrupted)
            self._told.seconds["play"] += time.perf_counter() - begin
            if rollout is None:
                return None
            if self._statistics.size:
                self._learn_statistics(rollout, tail)
            self._prepare(rollout, tail - self._g[self._dim :])  # else the first rewards would be divided by 1
        begin = time.perf_counter()
        if self._mlp is None or self._loss is not None or self._config.loss not in closed_form.LOSSES:
            losses = self._backward(self._player.rollout, self._queue.pop(0), tail)
        else:
            losses = self._closed_form(self._mlp, self._player.rollout, self._queue.pop(0), tail)
        norm = float(self._g[: self._dim].norm())
        if self._config.max_gradient_norm is not None and norm > self._config.max_gradient_norm:
            self._g[: self._dim].mul_(self._config.max_gradient_norm / norm)
        self._told.update(*losses, norm)
        self._told.seconds["gradient"] += time.perf_counter() - begin
        return self._g

    def report(self) -> Mapping[str, Any]:
        """See `Problem.report`; read by `hsa2c.agents.gym.tracker.EpisodeTracker`."""
        return self._told.take(self._player, self._envs)

    def close(self) -> None:
        """See `Problem.close`."""
        self._envs.close()

    def _prepare(self, r: Rollout, tail: Tensor) -> None:
        """Returns and advantages, and which samples go into which update."""
        config = self._config
        self._scale = self._statistics.reward_scale(tail)
        self._rewards = r.rewards / np.float32(self._scale)
        values = r.values.numpy()
        advantages, returns = gae(
            self._rewards,
            values[:-1],
            values[-1],
            terminated=r.terminated,
            truncated=r.truncated,
            valid=r.valid,
            discount=config.discount,
            gae_lambda=config.gae_lambda,
        )
        self._advantages, self._returns = torch.from_numpy(advantages), torch.from_numpy(returns)
        T, n = r.rewards.shape
        samples = n if self._sequences else T * n
        parts = max(1, round(T * n / config.batch))
        for _ in range(passes_of(config, continuous=self._actions.continuous)):
            self._queue += np.array_split(self._random.permutation(samples), min(parts, samples))
        self._told.rollouts += 1

    def _learn_statistics(self, r: Rollout, tail: Tensor) -> None:
        valid = torch.from_numpy(r.valid)
        observations = {path: x[:-1][valid] for path, x in to_tensors(r.observations).items()}
        if bool(valid.any()):
            sums = torch.from_numpy(r.sums)[valid] if self._statistics.rewards else None
            self._g[self._dim :] = self._statistics.gradient(tail, observations, sums)

    def _closed_form(
        self, mlp: MLP, r: Rollout, chosen: NDArray[np.intp], tail: Tensor
    ) -> tuple[float, float, float, float]:
        """The same as `_backward` for an MLP, in numpy."""

        def pick(x: Any) -> NDArray[Any]:
            picked: NDArray[Any] = x.reshape(-1, *x.shape[2:])[chosen]
            return picked

        mlp.read(tail)
        seen = mlp.see({path: pick(x[:-1]) for path, x in r.observations.items()})
        parameters, values = mlp.policy(seen), mlp.value(seen)
        mask = None if r.masks is None else pick(r.masks[:-1])
        density = closed_form.density(self._actions, parameters, mlp.log_std, mask, pick(r.actions.numpy()))
        samples = closed_form.Samples(
            log_p=pick(r.log_p.numpy()),
            advantages=pick(self._advantages.numpy()),
            returns=pick(self._returns.numpy()),
            valid=pick(r.valid),
        )
        loss = closed_form.loss(density, values[:, 0], samples, self._config)
        mlp.policy.backward(loss.to_parameters)
        mlp.value.backward(loss.to_values[:, None])
        if mlp.g_log_std is not None:
            mlp.g_log_std[:] = loss.to_log_std
        return loss.policy, loss.value, loss.entropy, loss.kl

    def _backward(self, r: Rollout, chosen: NDArray[np.intp], tail: Tensor) -> tuple[float, float, float, float]:
        """The gradient of the loss of a minibatch; gives losses of policy and value, the entropy and the KL."""
        config = self._config
        for parameter, view in self._views:
            parameter.grad = view
        batch, output = self._sequence(r, chosen, tail) if self._sequences else self._samples(r, chosen, tail)
        entropy = torch.where(batch.valid, output.entropy, 0.0).sum() / batch.valid.sum().clamp(min=1)
        if self._loss is not None:
            policy, value = scalar(self._loss(batch, output)), torch.zeros(())
        else:
            policy, value = LOSSES[config.loss](batch, output, config)
        total = policy + config.value_weight * value - config.entropy_weight * entropy
        total.backward()  # type: ignore[no-untyped-call]
        for parameter, view in self._views:
            if parameter.grad is not None and parameter.grad.data_ptr() != view.data_ptr():
                view.copy_(parameter.grad)
        with torch.no_grad():
            kl = torch.where(batch.valid, batch.log_p - output.log_p, 0.0).sum() / batch.valid.sum().clamp(min=1)
        return float(policy.detach()), float(value.detach()), float(entropy.detach()), float(kl)

    def _samples(self, r: Rollout, chosen: NDArray[np.intp], tail: Tensor) -> tuple[Batch, Output]:
        """Single steps from anywhere in the rollout."""
        index = torch.from_numpy(chosen)

        def pick(x: Tensor) -> Tensor:
            return x.reshape(-1, *x.shape[2:])[index]

        seen = {
            path: self._statistics.normalise(tail, path, pick(x[:-1])) for path, x in to_tensors(r.observations).items()
        }
        parameters, values, _ = self._agent(seen, (), torch.zeros(len(index), dtype=torch.bool))
        mask = None if r.masks is None else pick(torch.from_numpy(r.masks[:-1]))
        assert r.actions is not None
        actions = pick(r.actions)
        log_p, entropy = self._actions.evaluate(parameters, self._agent.log_std, mask, actions)
        batch = self._batch(r, pick, actions)
        return batch, Output(log_p=log_p, entropy=entropy, values=values, bootstrap=values[:0])

    def _sequence(self, r: Rollout, chosen: NDArray[np.intp], tail: Tensor) -> tuple[Batch, Output]:
        """All steps of some environments, in their order."""
        index = torch.from_numpy(chosen)
        T, n = len(r.rewards), len(index)

        def pick(x: Tensor) -> Tensor:
            return x[:, index]

        seen = {path: pick(x) for path, x in to_tensors(r.observations).items()}
        seen = {path: self._statistics.normalise(tail, path, x) for path, x in seen.items()}
        state = tuple(part[index] for part in r.state)
        parameters, values = self._agent.sequence(seen, state, pick(torch.from_numpy(r.starts)))
        masks = None if r.masks is None else pick(torch.from_numpy(r.masks[:-1])).reshape(T * n, -1)
        assert r.actions is not None
        actions = pick(r.actions)
        flat = actions.reshape(T * n, *actions.shape[2:])
        log_p, entropy = self._actions.evaluate(parameters[:-1].reshape(T * n, -1), self._agent.log_std, masks, flat)
        batch = self._batch(r, pick, actions)
        return batch, Output(
            log_p=log_p.view(T, n), entropy=entropy.view(T, n), values=values[:-1], bootstrap=values[-1].detach()
        )

    def _batch(self, r: Rollout, pick: Callable[[Tensor], Tensor], actions: Tensor) -> Batch:
        return Batch(
            actions=actions,
            log_p=pick(r.log_p),
            values=pick(r.values[:-1]),
            advantages=pick(self._advantages),
            returns=pick(self._returns),
            rewards=pick(torch.from_numpy(self._rewards)),
            terminated=pick(torch.from_numpy(r.terminated)),
            truncated=pick(torch.from_numpy(r.truncated)),
            valid=pick(torch.from_numpy(r.valid)),
        )


class _Told:
    """What happened since the last report."""

    def __init__(self) -> None:
        self.rollouts = self._updates = 0
        self.seconds = {"play": 0.0, "gradient": 0.0}
        self._sums: dict[str, float] = {}

    def update(self, policy: float, value: float, entropy: float, kl: float, norm: float) -> None:
        """One more update."""
        self._updates += 1
        names = ("loss/policy", "loss/value", "policy/entropy", "policy/approx_kl", "gradient/norm")
        for name, number in zip(names, (policy, value, entropy, kl, norm), strict=True):
            if np.isfinite(number):
                self._sums[name] = self._sums.get(name, 0.0) + number

    def take(self, player: Player, envs: Environments) -> dict[str, Any]:
        """All of it, which is forgotten here."""
        told = {
            "agent_steps": player.agent_steps,
            "updates": self._updates,
            "rollouts": self.rollouts,
            "update_sums": self._sums,
            "rollout_sums": {},
            "seconds": self.seconds,
            "games": [(episode.score, episode.agent_steps) for episode in player.episodes],
            "env_faults": envs.faults,
            "env_fault": envs.last_fault,
        }
        player.agent_steps, player.episodes = 0, []
        envs.faults, envs.last_fault = 0, ""
        self.rollouts = self._updates = 0
        self.seconds, self._sums = {"play": 0.0, "gradient": 0.0}, {}
        return told
