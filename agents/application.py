"""HSA2C, the main application: actor-critic agents on Atari, put together here and nowhere else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from hsa2c.agents.evaluating import AgentApplication
from hsa2c.agents.games import GameTracker
from hsa2c.agents.settings import (
    AgentConfig,
    AgentOptimiserConfig,
    AgentStopConfig,
    EvaluationConfig,
    Pixels,
    Precision,
    network_identity,
)
from hsa2c.agents.words import COMMAND, EVALUATION_SUMMARY, PICTURES, PREFLIGHT, card_of
from hsa2c.application import ProblemFactory
from hsa2c.cluster.capacity import Footprint
from hsa2c.cluster.sharing import cores_here, nodes_here
from hsa2c.config.loading import build, to_dict
from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OutputConfig
from hsa2c.dpsgd.protocols import Vector
from hsa2c.envs.actions import num_actions
from hsa2c.envs.names import resolve_game
from hsa2c.envs.settings import EnvConfig
from hsa2c.errors import ConfigError
from hsa2c.observe import shown
from hsa2c.words import Card

if TYPE_CHECKING:
    from hsa2c.agents.playing import Trained
    from hsa2c.agents.policy import Policy

_PRELOADED = 64
"""Emulators at most that are loaded before the fork, by one core; each process loads more of its own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtariConfig:
    """A run of HSA2C."""

    game: Annotated[str, AfterValidator(lambda text: resolve_game(text).name)] = "Pong"
    """Any one-player game of the ALE, as people type it."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of weights, environments and actions."""

    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: AgentOptimiserConfig = dataclasses.field(default_factory=AgentOptimiserConfig)
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    env: EnvConfig = dataclasses.field(default_factory=EnvConfig)
    stop: AgentStopConfig = dataclasses.field(default_factory=AgentStopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)


class Atari(AgentApplication):
    """See `hsa2c.application.Application`."""

    name = "hsa2c"
    fields = (
        shown.Field("agent steps", "agent_steps"),
        shown.Field("steps/s", "speed/agent_steps_per_s"),
        shown.Field("games", "games"),
        shown.Field("mean score of last 100", "score/mean_100", "{:,.2f}"),
        shown.Field("best", "score/best_mean_100", "{:,.2f}"),
        shown.Field("exchanges", "exchanges"),
        shown.Field("tau", "staleness/mean", "{:.2f}"),
        shown.Field("overlap", "staleness/overlap_mean", "{:.2f}"),
        shown.Field("master busy", "master/busy", "{:.0%}"),
        shown.Field("entropy", "policy/entropy", "{:.3f}"),
    )
    best = "score/mean_100"
    curve = shown.Field("mean score", "score/mean_100", "{:,.1f}")
    fixed: ClassVar[Sequence[str]] = ("game", "agent.initialisation")
    earlier_modules: ClassVar[Sequence[str]] = ("hsa2c.atari", "agents.application")
    summary: ClassVar[Mapping[str, str]] = {
        "agent_steps": "agent_steps",
        "updates": "updates",
        "games": "games",
        "mean_score": "score/mean_100",
        "best_mean_score": "score/best_mean_100",
        **EVALUATION_SUMMARY,
    }
    command, pictures, preflight = COMMAND, PICTURES, PREFLIGHT

    def build_config(self, values: Mapping[str, Any]) -> AtariConfig:
        """Plain values into a configuration."""
        return build(AtariConfig, values)

    def label(self, config: AtariConfig) -> str:
        """The first part of a run's name."""
        return config.game

    def title(self, config: AtariConfig) -> str:
        """What runs, in one line."""
        nodes, p = config.cluster.nodes, config.cluster.processes
        num_envs = _num_envs_everywhere(config)
        return (
            f"HSA2C {config.game}: {nodes} node{'s' if nodes > 1 else ''}"
            f" x {p or 'p'} actor-learner{'s' if p != 1 else ''}"
            f"{f' x {num_envs} environments' if num_envs else ''}, B = {config.dpsgd.local_updates}"
        )

    def starting(self, config: AtariConfig) -> str:
        """How many emulators."""
        nodes, p = config.cluster.nodes + config.cluster.spares, config.cluster.processes
        num_envs = _num_envs_everywhere(config)
        if p is None or num_envs is None:
            return ""
        return (
            f"starting {nodes} node{'s' if nodes > 1 else ''} x {p} actor-learner{'s' if p != 1 else ''}"
            f" x {num_envs} environments = {nodes * p * num_envs:,} emulators"
        )

    def footprint(self, config: AtariConfig) -> Footprint:
        """Two thirds of what was measured with 4 and with 64 environments."""
        num_envs = _num_envs(config)
        return Footprint(memory_bytes=(24 << 20) + num_envs * ((768 << 10) + config.agent.t_max * (150 << 10)), tasks=1)

    def on_host(self, config: AtariConfig, processes: int, cores: int) -> AtariConfig:
        """Environments of each actor-learner."""
        num_envs = config.agent.environments(config.cluster.processes or 1, processes, cores)
        return dataclasses.replace(config, agent=dataclasses.replace(config.agent, num_envs=num_envs))

    def identity(self, config: AtariConfig) -> dict[str, str]:
        """Game and network."""
        actions = _actions(config)
        return {
            "application": self.name,
            "game": config.game,
            "network": network_identity(actions, config.agent.pixels),
            "actions": str(actions),
        }

    def dim(self, config: AtariConfig) -> int:
        """Weights of the network."""
        from hsa2c.agents.network import ActorCritic, num_parameters

        return num_parameters(ActorCritic(_actions(config)))

    def initial(self, config: AtariConfig) -> Vector:
        """Weights drawn by the run's seed."""
        from hsa2c.agents.network import initial_vector

        vector: Vector = initial_vector(_actions(config), config.seed, config.agent.initialisation).numpy()
        return vector

    def problems(self, config: AtariConfig, node: int, t: int) -> ProblemFactory:
        """Actor-learners; what is random in each depends on the seed, its place and where the run was resumed."""
        import numpy as np

        from hsa2c.agents.problem import AtariProblem
        from hsa2c.envs import roms
        from hsa2c.envs.atari import MAX_SEED, AtariEnvs

        precision = _precision(config)
        game = resolve_game(config.game)
        num_envs = _num_envs(config)
        if config.env.sticky_actions == 0:  # else each emulator has a seed of its own
            roms.preload(game, min(num_envs, _PRELOADED))  # before the fork, so that the processes share them

        def make(index: int) -> AtariProblem:
            seeds = np.random.SeedSequence([config.seed, node, index, t]).generate_state(2)
            seed = int(seeds[0]) % (MAX_SEED - num_envs)
            environments = AtariEnvs(game, config.env, num_envs, seed=seed, in_thread=True)
            return AtariProblem(config.agent, environments, _actions(config), precision=precision, seed=int(seeds[1]))

        return make

    def policy(self, config: AtariConfig, v: Vector, *, greedy: bool = False, seed: int = 1) -> Policy:
        """A function from observations, uint8 [n, 4, 84, 84] or one of them, to actions; see `Policy`."""
        from hsa2c.agents.playing import policy

        return policy(self._trained(config, v), greedy=greedy, seed=seed)

    def evaluate(
        self,
        config: AtariConfig,
        v: Vector,
        *,
        games: int = 30,
        greedy: bool = False,
        sticky: float = 0.0,
        seed: int = 1000,
        video: str | Path | None = None,
    ) -> dict[str, Any]:
        """Scores of whole games, as ``evaluate.py --json`` prints them; see `hsa2c.agents.playing.play`."""
        from hsa2c.agents.playing import play

        file = None if video is None else Path(video)
        return play(self._trained(config, v), games=games, greedy=greedy, sticky=sticky, seed=seed, video=file)

    def play_beside(self, config: AtariConfig, v: Vector) -> Mapping[str, Any]:
        """See `AgentApplication.play_beside`; sticky actions are as in training."""
        from hsa2c.agents.playing import play

        how = config.evaluation
        return play(
            self._trained(config, v),
            games=how.episodes,
            greedy=how.greedy,
            sticky=config.env.sticky_actions,
            seed=how.seed,
            beside_training=True,
        )

    def card(
        self, config: AtariConfig, v: Vector, film: Path, *, games: int = 30, greedy: bool = False, seed: int = 1000
    ) -> Card:
        """Scores of whole games, and a film of one."""
        from hsa2c.envs.film import check_recordable

        remarks = []
        try:
            check_recordable(film)
        except ConfigError as error:
            remarks = [f"without {film.name}: {error}".replace(str(film), film.name)]
        video = None if remarks else film
        result = self.evaluate(config, v, games=games, greedy=greedy, seed=seed, video=video)
        # Gymnasium's name for the game without sticky actions, whose player skips the frames, as the protocol is.
        return card_of(f"{config.game}NoFrameskip-v4", result, result["protocol"], remarks)

    def export(self, config: AtariConfig, v: Vector, path: Path) -> None:
        """See `hsa2c.agents.export`."""
        from hsa2c.agents.export import export

        export(self.policy(config, v, greedy=True).exportable(), path)

    def _trained(self, config: AtariConfig, v: Vector) -> Trained:
        from hsa2c.agents.playing import Trained

        network = network_identity(_actions(config), config.agent.pixels)
        return Trained(game=config.game, network=network, pixels=config.agent.pixels, env=to_dict(config.env), v=v)

    def limits(self, config: AtariConfig) -> dict[str, float]:
        """Where training ends by itself."""
        return {} if config.stop.agent_steps is None else {"agent_steps": config.stop.agent_steps}

    def tracker(self, config: AtariConfig, counters: Mapping[str, Any]) -> GameTracker:
        """Learning curves."""
        return GameTracker(
            config.cluster.nodes,
            _actions(config),
            limit_agent_steps=config.stop.agent_steps,
            limit_score=config.stop.score,
            counters=counters,
        )

    def work_per_update(self, config: AtariConfig) -> float:
        """Agent steps."""
        return _batch(config) / config.agent.passes

    def describe(self, config: AtariConfig) -> dict[str, Any]:
        """What a node chose for itself."""
        return {"precision": _precision(config), "num_envs": _num_envs(config)}

    def chosen(self, config: AtariConfig, said: Mapping[str, Any]) -> AtariConfig:
        """With a node's precision, which a measurement may have chosen, and its environments, which follow from p and
        from what else its host had.
        """
        agent = config.agent
        given = {name: said.get(name, getattr(agent, name)) for name in ("precision", "num_envs")}
        return dataclasses.replace(config, agent=dataclasses.replace(agent, **given))


def _actions(config: AtariConfig) -> int:
    return num_actions(resolve_game(config.game), full_action_set=config.env.full_action_set)


def _num_envs(config: AtariConfig) -> int:
    """Of each process of the node whose configuration this is."""
    return config.agent.environments(config.cluster.processes or 1, on_host=1, cores=1)  # set, unless it is alone


def _num_envs_everywhere(config: AtariConfig) -> int | None:
    """Of each process of a run; None: hosts may differ."""
    cluster, agent = config.cluster, config.agent
    if cluster.hosts is not None or cluster.processes is None:
        return agent.num_envs
    on_host = nodes_here(cluster.nodes) * cluster.processes
    return agent.environments(cluster.processes, on_host, cores_here())


def _batch(config: AtariConfig) -> int:
    """Samples of an update there."""
    agent, num_envs = config.agent, _num_envs(config)
    return num_envs * agent.t_max // agent.updates_per_pass(num_envs)


def _precision(config: AtariConfig) -> Precision:
    agent = config.agent
    if agent.precision != "auto":
        return agent.precision
    return _measured_precision(_actions(config), agent.pixels, _batch(config))


@cache
def _measured_precision(actions: int, pixels: Pixels, batch: int) -> Precision:
    from hsa2c.agents.fast_network import choose_precision

    return choose_precision(actions, pixels, batch)


APPLICATION = Atari()
