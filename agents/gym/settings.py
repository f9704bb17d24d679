"""Settings of an agent in any Gymnasium environment."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from hsa2c.agents.settings import EvaluationConfig
from hsa2c.config.sections import STRICT, ClusterConfig, DPSGDConfig, OptimiserConfig, OutputConfig, StopConfig

CodeName = Annotated[str, Field(min_length=1)]

_ROLLOUT, _SHORTEST_ROLLOUT, _ROLLOUTS = 128, 8, 1024
"""Where `ActorCriticConfig.t_max` is None: its bounds, and the sum over the processes of several nodes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImageConfig:
    """What is made of pixels, by Gymnasium's wrappers, in this order."""

    grey: bool = False
    """Grey levels instead of colours."""

    size: Annotated[int, Field(ge=16, le=1024)] | None = None
    """Height and width. None: as they are."""

    stack: Annotated[int, Field(ge=1, le=64)] = 1
    """The newest images that are one observation; grey ones become its channels."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnvironmentConfig:
    """What the agent acts in."""

    id: CodeName = "CartPole-v1"
    """Id of Gymnasium's, such as CartPole-v1 or package:Id-v0; or a function or class that makes an environment,
    module:name or /folder/script.py:name."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment."""

    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    """What is made of pixels."""

    num_envs: Annotated[int, Field(ge=1, le=4096)] = 8
    """Environments that each actor-learner process has side by side. From 8 on, an id that has a vector implementation
    steps them all at once."""

    step_limit_s: Annotated[float, Field(gt=0, le=86_400)] | None = 60.0
    """Seconds that one step or reset may take. Then the environment is made anew, which may take as long. None: as long
    as it likes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ActorCriticConfig:
    """How play becomes gradients."""

    network: CodeName | None = None
    """A function of the observation space and the action space that makes a torch module, module:name or
    /folder/script.py:name. None: by the spaces."""

    loss: CodeName = "ppo"
    """a2c (Mnih et al. 2016), ppo (Schulman et al. 2017), vtrace (Espeholt et al. 2018), or a function, as network."""

    recurrent: Literal["none", "lstm", "gru"] = "none"
    """A core that remembers: its state goes on from rollout to rollout, and begins anew with each episode."""

    hidden: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Width of the hidden layers."""

    layers: Annotated[int, Field(ge=1, le=32)] = 2
    """Hidden layers of policy and value, where there are no pixels and no memory."""

    convolution: Literal["mnih", "impala"] = "mnih"
    """For pixels: Mnih et al. 2015, or the larger residual one of Espeholt et al. 2018."""

    bounds: Literal["clip", "squash"] = "clip"
    """How an action of a bounded Box is kept within it: clip (OpenAI baselines), or squash by tanh (Haarnoja et al.
    2018). -1 and 1 stand for the bounds."""

    log_std: Annotated[float, Field(ge=-10, le=3)] = -1.0
    """Logarithm of the deviation that actions of a Box have at first, where bounds are -1 and 1. It is learnt."""

    t_max: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Length of a rollout in agent steps of each environment. None: 128 on one node, or with a memory. On more
    nodes it is 1024 / processes of all nodes, from 8 to 128 (docs/lab/2026-11-nodes.md)."""

    passes: Annotated[int, Field(ge=1, le=100)] | None = None
    """Times each rollout is used. None: 4 with ppo, or 10 where actions are a Box; 1 with any other loss. K in Schulman
    et al. 2017, who had 10 for MuJoCo."""

    batch: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Samples of an update, about; where sequences are learnt from, whole environments of a rollout."""

    discount: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each agent step. gamma."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Decay of longer returns (Schulman et al. 2016). lambda."""

    entropy_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the policy's mean entropy (nats), which is maximised. beta."""

    value_weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Weight of half the mean squared error of the value."""

    policy_clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """With ppo: how far the importance ratio may move from 1. epsilon in Schulman et al. 2017, Eq. 7."""

    normalise_advantages: bool = True
    """Shift and scale the advantages of an update to mean 0 and deviation 1."""

    normalise_observations: bool = True
    """Shift and scale numbers of observations by their running means and deviations, which are a part of v."""

    normalise_rewards: bool = True
    """Divide rewards by the running deviation of the discounted return, which is a part of v."""

    max_gradient_norm: Annotated[float, Field(gt=0, le=1e6)] | None = 0.5
    """Longest gradient; a longer one is scaled back. None: never."""


def rollout_of(agent: ActorCriticConfig, nodes: int = 1, processes: int = 1) -> int:
    """What `t_max` comes to in a run of so many nodes, and processes of each."""
    if agent.t_max is not None:
        return agent.t_max
    if nodes == 1 or agent.recurrent != "none":
        return _ROLLOUT
    return min(_ROLLOUT, max(_ROLLOUTS // (nodes * processes), _SHORTEST_ROLLOUT))


def learns_from_sequences(agent: ActorCriticConfig) -> bool:
    """Whether an update has all time steps of some environments, in their order."""
    return agent.recurrent != "none" or agent.loss == "vtrace"


def passes_of(agent: ActorCriticConfig, *, continuous: bool) -> int:
    """Times each rollout is used; `continuous`: actions are a Box."""
    return agent.passes or ((10 if continuous else 4) if agent.loss == "ppo" else 1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GymOptimiserConfig(OptimiserConfig):
    """Line 6 of Algorithm 2, as agents learn well."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 7e-4
    """Local learning rate at the start. eta."""

    half_after: Annotated[float, Field(gt=0, le=1e15)] | None = 1e6
    """Agent steps of a node after which the local learning rate has fallen to a half; see `OptimiserConfig`."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Adam: decay of the mean of gradients, its momentum. 0: none, for processes that share u without a lock are a
    momentum of their own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EpisodeStopConfig(StopConfig):
    """When training ends by itself: whichever comes first; None never."""

    agent_steps: Annotated[int, Field(ge=1)] | None = None
    """Actions over all nodes, resumes included."""

    episodes: Annotated[int, Field(ge=1)] | None = None
    """Whole episodes over all nodes, resumes included."""

    score: float | None = None
    """Mean score of the last 100 training episodes."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GymConfig:
    """A run of an agent in any environment."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of weights, environments and actions."""

    env: EnvironmentConfig = dataclasses.field(default_factory=EnvironmentConfig)
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    dpsgd: DPSGDConfig = dataclasses.field(default_factory=DPSGDConfig)
    optimiser: GymOptimiserConfig = dataclasses.field(default_factory=GymOptimiserConfig)
    agent: ActorCriticConfig = dataclasses.field(default_factory=ActorCriticConfig)
    stop: EpisodeStopConfig = dataclasses.field(default_factory=EpisodeStopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)
