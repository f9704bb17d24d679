"""Typed settings of the actor-critic agent: the section `agent` of a run's configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from hsa2c.config.sections import STRICT, OptimiserConfig

Loss = Literal["a2c", "ppo", "vtrace"]
Returns = Literal["gae", "n-step"]
Initialisation = Literal["orthogonal", "torch"]
Precision = Literal["float32", "bfloat16"]
Pixels = Literal["background", "standardised", "raw"]

OBSERVATION_SHAPE = (4, 84, 84)
"""Last 4 frames, 84 x 84 grey levels in uint8."""

_BATCH = 64
"""Samples of an update, at least, where `AgentConfig.minibatches` is None."""

_GAMES_OF_A_NODE, _FEWEST_ENVS, _MOST_ENVS = 128, 16, 64
"""Where `AgentConfig.num_envs` is None: games of a node, and the bounds of a process's share of them: fewer are slow to
act, and samples of more are older when they are learnt from (docs/lab/2026-11-performance.md)."""

_GAMES_OF_A_CORE, _FEWEST_SHARING = 128, 4
"""The same on a host with many processes for a core: its games for each core, and the fewest of a process. A game takes
0.1 s of a core and 1 MB to start."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AgentConfig:
    """What each actor-learner process plays, and how it turns play into gradients."""

    num_envs: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Environments that each actor-learner process plays side by side. None: 64 with one or two processes on a node, 32
    with three or four, 16 with more. So a sample is not much older where many processes learn. The processes of all
    nodes on a host have at most 128 for each of its cores. Where it would be more, each plays fewer, but 4 at least."""

    t_max: Annotated[int, Field(ge=1, le=10_000)] = 32
    """Length of a rollout in agent steps of each environment. t_max in Mnih et al. 2016."""

    loss: Loss = "ppo"
    """a2c: neither ratio nor clip (Mnih et al. 2016). ppo: the clipped importance ratio (Schulman et al. 2017). vtrace:
    targets that correct for the policy's age (Espeholt et al. 2018); an update is whole sequences of some environments.
    """

    passes: Annotated[int, Field(ge=1, le=100)] = 1
    """Times each rollout is used. 1 is Mnih et al. 2016; K (epochs) in Schulman et al. 2017, 3 in their Atari runs."""

    minibatches: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Equal parts, one update each, that a pass deals the shuffled t_max time steps of a rollout into. All environments
    of a time step stay together. vtrace deals the environments instead, and makes at most as many parts. None: as many
    as leave 64 samples to an update. Schulman et al. 2017 had 4 in their Atari runs, of 256 samples, and Mnih et al.
    2016 had 1."""

    convolutions: Literal["acting", "fresh"] = "fresh"
    """What an update learns from. fresh: everything is computed anew with the newest weights. acting: what the
    convolutions gave when the sample was played, a rollout ago at most; the layers above them are computed anew. acting
    is less work, and bears half the learning rate only (docs/lab/2026-11-performance.md)."""

    discount: Annotated[float, Field(ge=0, le=1)] = 0.99
    """Discount for each agent step. gamma."""

    returns: Returns = "gae"
    """gae (Schulman et al. 2016) or n-step, to the rollout's end (Mnih et al. 2016, Algorithm S3)."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Decay of longer returns, used where returns is gae. lambda; 1 is n-step (Schulman et al. 2016)."""

    entropy_weight: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Weight of the policy's mean entropy (nats), which is maximised. beta (Mnih et al. 2016, 0.01)."""

    value_weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Weight of half the mean squared error of the value. c_1 in Schulman et al. 2017, Eq. 9; 0.5 in OpenAI
    baselines."""

    policy_clip: Annotated[float, Field(gt=0, lt=1)] | None = 0.1
    """With ppo: how far the importance ratio may move from 1. epsilon in Schulman et al. 2017, Eq. 7, 0.1 at the start
    of their Atari runs. None: no ratio, as with a2c."""

    normalise_advantages: bool = True
    """Shift and scale the advantages of an update to mean 0 and standard deviation 1 (OpenAI baselines' PPO)."""

    max_gradient_norm: Annotated[float, Field(gt=0, le=1e6)] | None = 0.5
    """Longest gradient, Euclidean norm over all weights; a longer one is scaled back (OpenAI baselines, 0.5). None:
    never."""

    pixels: Pixels = "background"
    """What the network makes of grey levels. background: an observation less its median, over its deviation from the
    median. The median is the background's level, so that only what stands out of the background is not 0
    (docs/lab/2026-11-performance.md). standardised: less its mean, over its standard deviation (LeCun et al. 1998,
    Efficient BackProp, section 4.3). raw: grey level / 255."""

    initialisation: Initialisation = "orthogonal"
    """Weights at the start: orthogonal, with a small policy head (OpenAI baselines; Andrychowicz et al. 2021), or
    torch, uniform in +- 1 / sqrt(inputs)."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the hidden layers; weights, gradients, heads and losses are float32 always. auto: bfloat16 where
    a short measurement at the start finds it at least 10 % faster."""

    @field_validator("loss", mode="before")
    @classmethod
    def _has_a_written_gradient(cls, loss: Any) -> Any:
        """That of a user's own would need automatic differentiation, which other environments have."""
        if loss not in get_args(Loss):
            raise ValueError("a2c, ppo or vtrace; one of your own needs --env ALE/Pong-v5 instead of --game")
        return loss

    @field_validator("minibatches")
    @classmethod
    def _divides_the_rollout(cls, minibatches: int | None, info: ValidationInfo) -> int | None:
        """Every update must have the same number of samples."""
        t_max = info.data.get("t_max", 0)  # 0 where it was itself refused
        if minibatches is not None and t_max % minibatches:
            raise ValueError(f"a divisor of t_max = {t_max}")
        return minibatches

    def environments(self, processes: int, on_host: int, cores: int) -> int:
        """What `num_envs` comes to.

        A sample waits while all processes learn from their rollouts: num_envs * processes * t_max / _BATCH updates.

        Args:
            processes: Of the node.
            on_host: Of all nodes on its host.
            cores: Of the host.
        """
        if self.num_envs is not None:
            return self.num_envs
        of_node = min(max(_GAMES_OF_A_NODE // processes, _FEWEST_ENVS), _MOST_ENVS)
        share = min(of_node, max(_GAMES_OF_A_CORE * cores // on_host, _FEWEST_SHARING))
        return 1 << (share.bit_length() - 1)  # a power of 2, so that updates of whole time steps have _BATCH samples

    def updates_per_pass(self, num_envs: int) -> int:
        """What `minibatches` comes to with so many environments."""
        parts = [k for k in range(1, self.t_max + 1) if self.t_max % k == 0 and num_envs * self.t_max >= k * _BATCH]
        given = self.minibatches or max(parts, default=1)
        return min(given, num_envs) if self.loss == "vtrace" else given


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AgentOptimiserConfig(OptimiserConfig):
    """Line 6 of Algorithm 2, with what agents learn well by (docs/lab/2026-11-performance.md)."""

    learning_rate: Annotated[float, Field(gt=0, le=10)] = 5e-4
    """Local learning rate at the start. eta."""

    half_after: Annotated[float, Field(gt=0, le=1e15)] | None = 1.5e6
    """Agent steps of a node after which the local learning rate has fallen to a half; see `OptimiserConfig`."""

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Adam: decay of the mean of gradients, its momentum. 0: none, for processes that share u without a lock are a
    momentum of their own."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AgentStopConfig:
    """When training ends by itself: whichever comes first; None never."""

    agent_steps: Annotated[int, Field(ge=1)] | None = None
    """Actions over all nodes, counted from the start of the run, resumes included."""

    minutes: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Wall-clock of training, start-up excluded, resumes included."""

    score: float | None = None
    """Mean score of the last 100 training games."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationConfig:
    """Evaluation while training goes on: whole episodes (games), in a process of its own at low priority."""

    every_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Seconds from the start of one evaluation to the start of the next; more where one takes longer. None: there is
    none."""

    episodes: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Episodes of each. The error of their mean is a third of the deviation of one. That tells a better checkpoint, and
    is little work beside training."""

    greedy: bool = False
    """Take the likeliest action instead of sampling one."""

    seed: Annotated[int, Field(ge=0, lt=2**30)] = 10_000
    """Episode k begins with seed + k in each evaluation, so that two differ by what was learnt. Other seeds than those
    of evaluate.py: the best checkpoint is not judged by the episodes that it was chosen by."""

    limit_s: Annotated[float, Field(gt=0, le=86_400)] = 1800.0
    """Seconds that one may take; then it is ended, and counts as failed."""


def network_identity(num_actions: int, pixels: Pixels) -> str:
    """What two flat vectors must share to be of the same network, for example ``mnih2013-standardised-4x84x84-6``."""
    kind = "mnih2013" if pixels == "raw" else f"mnih2013-{pixels}"
    return f"{kind}-{'x'.join(str(size) for size in OBSERVATION_SHAPE)}-{num_actions}"
