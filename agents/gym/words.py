"""What an agent in any environment is called where people read: see `hsa2c.words`."""

from __future__ import annotations

from hsa2c.agents.words import AGENT_STEPS, EVALUATE_EVERY, EVALUATION_LABELS, SECTIONS, TAGS, TRAINING_LABELS
from hsa2c.words import CommandWords, Option, PictureWords, PreflightWords

COMMAND = CommandWords(
    program="train.py",
    title="HSA2C: train an agent on every core you have",
    purpose="train an agent",
    description="Train an agent in any Gymnasium environment with HSA2C on this machine's cores, or on many machines'.",
    options=(
        Option(
            flag="--env",
            group="what",
            field="env.id",
            metavar="ID",
            help="id of Gymnasium's, package:Id-v0, or module:function that makes one (CartPole-v1)",
        ),
        Option(
            flag="--network",
            group="what",
            field="agent.network",
            metavar="MODULE:NAME",
            after="--env",
            help="a function of both spaces that makes a torch module (by the spaces)",
        ),
        Option(
            flag="--loss",
            group="what",
            field="agent.loss",
            metavar="NAME",
            after="--network",
            help="a2c, ppo, vtrace, or module:function (ppo)",
        ),
        AGENT_STEPS,
        Option(
            flag="--episodes",
            group="stop",
            field="stop.episodes",
            type=int,
            metavar="N",
            help="whole episodes over all nodes",
        ),
        Option(
            flag="--score",
            group="stop",
            field="stop.score",
            type=float,
            metavar="S",
            after="--minutes",
            help="mean score of the last 100 training episodes",
        ),
        EVALUATE_EVERY,
    ),
    helps={"--set": "such as agent.recurrent=lstm", "--name": "name of this run in it (environment, date and time)"},
    limits="--agent-steps or --minutes",
    example="agent.recurrent=lstm",
    configs="hsa2c.configs",
    next="python evaluate.py",
    evaluate="hsa2c.agents.gym.evaluate",
    count=("--games", "--episodes"),
    evaluating="let a trained agent act (as evaluate.py)",
)

PICTURES = PictureWords(
    unit="agent steps",
    subject="env.id",
    tags=TAGS,
    labels={
        "score/mean_100": "mean score of the last 100 episodes",
        "score/best_mean_100": "best mean score of 100 episodes",
        **TRAINING_LABELS,
        **EVALUATION_LABELS,
    },
    sections=SECTIONS,
)

PREFLIGHT = PreflightWords(
    needs="environment",
    cure="install there what the environment needs",
    smaller="--set env.num_envs",
    packages=("gymnasium",),
    folders=("agents", "envs"),
)
