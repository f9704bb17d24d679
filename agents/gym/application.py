"""An agent in any Gymnasium environment as an application: environments and networks meet the framework here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hsa2c import names
from hsa2c.agents.evaluating import AgentApplication
from hsa2c.agents.gym.parts import (
    agent_of,
    is_code,
    maker_of,
    maker_of_all,
    parameters_of,
    spaces_of,
    statistics_of,
    try_out,
)
from hsa2c.agents.gym.settings import GymConfig, passes_of, rollout_of
from hsa2c.agents.gym.words import COMMAND, PICTURES, PREFLIGHT
from hsa2c.agents.words import EVALUATION_SUMMARY, card_of
from hsa2c.application import ProblemFactory
from hsa2c.cluster.capacity import Footprint
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ConfigError
from hsa2c.observe.shown import Field
from hsa2c.words import Card

if TYPE_CHECKING:
    from hsa2c.agents.gym.acting import AgentPolicy
    from hsa2c.agents.gym.tracker import EpisodeTracker
    from hsa2c.envs.steps import Environments
    from hsa2c.node.layout import Layout

_LOSSES = ("a2c", "ppo", "vtrace")


class Gym(AgentApplication):
    """See `hsa2c.application.Application`."""

    name = "gym"
    config_type = GymConfig
    fields = (
        Field("agent steps", "agent_steps"),
        Field("steps/s", "speed/agent_steps_per_s"),
        Field("episodes", "episodes"),
        Field("mean score of last 100", "score/mean_100", "{:,.2f}"),
        Field("best", "score/best_mean_100", "{:,.2f}"),
        Field("exchanges", "exchanges"),
        Field("tau", "staleness/mean", "{:.2f}"),
        Field("overlap", "staleness/overlap_mean", "{:.2f}"),
        Field("master busy", "master/busy", "{:.0%}"),
        Field("entropy", "policy/entropy", "{:.3f}"),
    )
    best = "score/mean_100"
    curve = Field("mean score", "score/mean_100", "{:,.1f}")
    fixed: ClassVar[Sequence[str]] = (
        "env.id",
        "env.options",
        "env.image",
        "agent.network",
        "agent.recurrent",
        "agent.hidden",
    )
    summary: ClassVar[Mapping[str, str]] = {
        "agent_steps": "agent_steps",
        "updates": "updates",
        "episodes": "episodes",
        "mean_score": "score/mean_100",
        "best_mean_score": "score/best_mean_100",
        **EVALUATION_SUMMARY,
    }
    command, pictures, preflight = COMMAND, PICTURES, PREFLIGHT

    def code(self, config: GymConfig) -> Sequence[str]:
        """Environment, network and loss, where they are the user's."""
        given = (config.env.id, config.agent.network, config.agent.loss)
        return tuple(name for name in given if name is not None and is_code(name))

    def imports(self, config: GymConfig) -> Sequence[str]:
        """The same, and the package that an id may name."""
        return tuple(dict.fromkeys((*self.code(config), *([config.env.id] if ":" in config.env.id else ()))))

    def suspect(self, config: GymConfig) -> str:
        """The environment."""
        return f"env {config.env.id}"

    def label(self, config: GymConfig) -> str:
        """The environment."""
        word = config.env.id.rpartition(":")[2].rpartition("/")[2].rpartition(".")[2]
        return word if word.isascii() and word.replace("-", "").isalnum() else self.name

    def title(self, config: GymConfig) -> str:
        """What runs, in one line."""
        whole = super().title(config)
        known = config.cluster.processes is not None  # else hosts may differ
        rollouts = f", rollouts of {_rollout(config)}" if known else ""
        return f"HSA2C {self.label(config)}{whole.removeprefix(self.name)}{rollouts}"

    def resolve(self, config: GymConfig) -> GymConfig:
        """Nothing is left to rules; but names must stand for what they are to be."""
        if config.agent.loss not in _LOSSES and not is_code(config.agent.loss):
            raise ConfigError(f"agent.loss = {config.agent.loss!r}: must be {', '.join(_LOSSES)}, or module:function")
        for name in self.code(config):
            if not callable(names.find(name)):
                raise ConfigError(f"{name}: is a {type(names.find(name)).__name__}, must be a function or class")
        try_out(config)
        return config

    def identity(self, config: GymConfig) -> dict[str, str]:
        """Environment and spaces."""
        observations, actions = spaces_of(config)
        return {
            "application": self.name,
            "environment": config.env.id,
            "observations": str(observations),
            "actions": str(actions),
            "network": f"{config.agent.network or 'by the spaces'}, {config.agent.recurrent}",
        }

    def limits(self, config: GymConfig) -> dict[str, float]:
        """Where training ends by itself."""
        given = {"agent_steps": config.stop.agent_steps, "episodes": config.stop.episodes}
        return {name: limit for name, limit in given.items() if limit is not None}

    def footprint(self, config: GymConfig) -> Footprint:
        """Of a process with small environments."""
        return Footprint(memory_bytes=(30 << 20) + (config.env.num_envs << 20), tasks=1)

    def dim(self, config: GymConfig) -> int:
        """Weights of the network, and the running statistics."""
        return parameters_of(config) + self.averages(config)

    def averages(self, config: GymConfig) -> int:
        """The running statistics."""
        return statistics_of(config).size

    def initial(self, config: GymConfig) -> Vector:
        """Weights drawn by the run's seed; statistics that know nothing."""
        import torch

        from hsa2c.agents.gym.networks import initialise
        from hsa2c.agents.network import bind, num_parameters

        torch.manual_seed(config.seed)
        agent, tail = agent_of(config), self.averages(config)
        initialise(agent, config.seed)
        drawn = torch.cat([parameter.detach().reshape(-1) for parameter in agent.parameters()])
        flat = torch.zeros(num_parameters(agent) + tail)
        flat[: len(drawn)] = drawn
        bind(agent, flat[: len(drawn)])
        return cast("Vector", flat.numpy())

    def layout(self, config: GymConfig) -> Layout:
        """The optimiser leaves the statistics alone."""
        from hsa2c.node.layout import DenseLayout
        from hsa2c.node.optimiser import rule_of

        return DenseLayout(self.dim(config), rule_of(config.optimiser), self.averages(config))

    def problems(self, config: GymConfig, node: int, t: int) -> ProblemFactory:
        """Actor-learners; what is random in each depends on the seed, its place and where the run was resumed."""
        import numpy as np

        from hsa2c.agents.gym.problem import ActorCritic
        from hsa2c.envs.episodes import Envs
        from hsa2c.envs.vectors import VectorEnvs

        make_env, make_all = maker_of(config), maker_of_all(config)
        loss = names.find(config.agent.loss) if is_code(config.agent.loss) else None
        how_to_learn = dataclasses.replace(config.agent, t_max=_rollout(config))

        def make(index: int) -> ActorCritic:
            seeds = np.random.SeedSequence([config.seed, node, index, t]).generate_state(2)
            how: dict[str, Any] = {"step_limit_s": config.env.step_limit_s, "name": self.suspect(config)}
            seed = int(seeds[0]) % 2**30
            if make_all is not None:
                envs: Environments = VectorEnvs(make_all, seed=seed, **how)
            else:
                envs = Envs(make_env, config.env.num_envs, seed=seed, **how)
            return ActorCritic(how_to_learn, envs, agent_of(config), statistics_of(config), loss, int(seeds[1]))

        return make

    def tracker(self, config: GymConfig, counters: Mapping[str, Any]) -> EpisodeTracker:
        """Learning curves."""
        from hsa2c.agents.gym.tracker import EpisodeTracker

        _, actions = spaces_of(config)
        return EpisodeTracker(
            config.cluster.nodes,
            int(getattr(actions, "n", 1)) if type(actions).__name__ == "Discrete" else 1,
            limit_agent_steps=config.stop.agent_steps,
            limit_episodes=config.stop.episodes,
            limit_score=config.stop.score,
            counters=counters,
        )

    def work_per_update(self, config: GymConfig) -> float:
        """Agent steps."""
        _, actions = spaces_of(config)
        return config.agent.batch / passes_of(config.agent, continuous=type(actions).__name__ == "Box")

    def policy(self, config: GymConfig, v: Vector, *, greedy: bool = False, seed: int = 1) -> AgentPolicy:
        """A function from an observation to an action; see `AgentPolicy`."""
        from hsa2c.agents.gym.acting import AgentPolicy

        observations, actions = spaces_of(config)
        return AgentPolicy(
            agent_of(config),
            v,
            statistics_of(config),
            observations,
            actions,
            bounds=config.agent.bounds,
            greedy=greedy,
            seed=seed,
        )

    def evaluate(
        self,
        config: GymConfig,
        v: Vector,
        *,
        games: int = 30,
        greedy: bool = False,
        seed: int = 1000,
        video: str | Path | None = None,
    ) -> dict[str, Any]:
        """Scores of whole episodes, as ``evaluate.py --json`` prints them."""
        from hsa2c.agents.gym.acting import check_film, play, record

        if games < 1:
            raise ConfigError(f"games = {games}: must be at least 1")
        if video is not None:
            check_film(maker_of(config, render_mode="rgb_array"), Path(video), seed=seed)
        policy = self.policy(config, v, greedy=greedy, seed=seed)
        how: dict[str, Any] = {"step_limit_s": config.env.step_limit_s, "name": self.suspect(config)}
        played = play(policy, maker_of(config), episodes=games, seed=seed, **how)
        result = {"environment": config.env.id, **played}
        if video is not None:
            score = record(policy, maker_of(config, render_mode="rgb_array"), Path(video), seed=seed)
            result["video"] = {"file": str(video), "score": score}
        return result

    def card(
        self, config: GymConfig, v: Vector, film: Path, *, games: int = 30, greedy: bool = False, seed: int = 1000
    ) -> Card:
        """Scores of whole episodes, and a film where the environment can be rendered."""
        from hsa2c.agents.gym.acting import check_film

        remarks = []
        try:
            check_film(maker_of(config, render_mode="rgb_array"), film, seed=seed)
        except ConfigError as error:
            remarks = [f"without {film.name}: {error}".replace(str(film), film.name)]
        video = None if remarks else film
        result = self.evaluate(config, v, games=games, greedy=greedy, seed=seed, video=video)
        how = f"{games} whole episodes, sums of rewards, {'greedy' if greedy else 'sampled'} actions"
        how = f"{how}, seeds {seed} to {seed + games - 1}"
        return card_of(config.env.id, result, how, remarks)

    def export(self, config: GymConfig, v: Vector, path: Path) -> None:
        """See `hsa2c.agents.gym.export`."""
        from hsa2c.agents.gym.export import export

        export(self.policy(config, v, greedy=True), path)


def _rollout(config: GymConfig) -> int:
    return rollout_of(config.agent, config.cluster.nodes, config.cluster.processes or 1)


APPLICATION = Gym()
