"""What the Atari application, and agents of any kind, are called where people read: see `hsa2c.words`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsa2c.observe.shown import Field
from hsa2c.words import Card, CommandWords, Option, PictureWords, PreflightWords

AGENT_STEPS = Option(
    flag="--agent-steps",
    group="stop",
    field="stop.agent_steps",
    type=int,
    metavar="N",
    help="actions over all nodes",
)
EVALUATE_EVERY = Option(
    flag="--evaluate-every",
    group="output",
    field="evaluation.every_s",
    type=float,
    metavar="SECONDS",
    after="--record",
    help="play 10 evaluation episodes so often, in a process of its own; they choose the best checkpoint (never)",
)
TAGS = ("score/mean_100", "speed/agent_steps_per_s", "policy/entropy")
TRAINING_LABELS = {
    "speed/agent_steps_per_s": "agent steps per second",
    "policy/entropy": "policy entropy (nats)",
    "gradient/norm": "gradient norm",
    "loss/policy": "policy loss",
    "loss/value": "value loss",
}
SECTIONS = (("Policy and value", ("policy", "value", "loss", "gradient"), ""),)
EVALUATED = Field("evaluated", "evaluate/score_mean", "{:,.2f}")
EVALUATION_LABELS = {
    "evaluate/score_mean": "mean score of an evaluation",
    "evaluate/score_std": "deviation of an evaluation's scores",
    "evaluate/best_score_mean": "best mean score of an evaluation",
    "evaluate/length_mean_steps": "mean length in an evaluation (agent steps)",
    "evaluate/seconds": "seconds that an evaluation took",
}
EVALUATION_SUMMARY = {"evaluated_score": "evaluate/score_mean", "best_evaluated_score": "evaluate/best_score_mean"}
"""What ``--json`` says."""

COMMAND = CommandWords(
    program="train.py",
    title="HSA2C: train Atari agents on every core you have",
    purpose="train an agent",
    description="Train an Atari agent with HSA2C on this machine's cores, or on many machines'.",
    options=(
        Option(
            flag="--game",
            group="what",
            field="game",
            help="any one-player game of the ALE: Pong, space_invaders, ALE/Breakout-v5 (Pong)",
        ),
        Option(
            flag="--loss",
            group="what",
            field="agent.loss",
            metavar="NAME",
            after="--game",
            help="a2c, ppo or vtrace (ppo)",
        ),
        AGENT_STEPS,
        Option(
            flag="--score",
            group="stop",
            field="stop.score",
            type=float,
            metavar="S",
            after="--minutes",
            help="mean score of the last 100 training games",
        ),
        EVALUATE_EVERY,
    ),
    helps={
        "--config": "YAML file, or the name of a shipped one: pong, paper/hsa2c",
        "--set": "such as agent.discount=0.995",
        "--name": "name of this run in it (game, date and time)",
        "--record": "record each delta, for --replay; 2.7 MB each",
    },
    others={"--env": "hsa2c.agents.gym.application"},
    limits="--agent-steps or --minutes",
    example="agent.discount=0.99",
    configs="hsa2c.configs",
    next="python evaluate.py",
    evaluate="hsa2c.agents.commands.evaluate",
    count=("--games",),
    evaluating="let a trained agent play (as evaluate.py)",
)

PICTURES = PictureWords(
    unit="agent steps",
    subject="game",
    tags=TAGS,
    labels={
        "score/mean_100": "mean score of the last 100 games",
        "score/best_mean_100": "best mean score of 100 games",
        **TRAINING_LABELS,
        "value/explained_variance": "explained variance of the value",
        **EVALUATION_LABELS,
    },
    sections=SECTIONS,
)

PREFLIGHT = PreflightWords(
    needs="game",
    cure="pip install --force-reinstall ale-py there",
    smaller="--set agent.num_envs",
    packages=("gymnasium", "ale-py"),
    folders=("agents", "envs"),
)


def card_of(subject: str, result: Mapping[str, Any], how: str, remarks: Sequence[str]) -> Card:
    """A model card's words of an agent's scores.

    Args:
        subject: The environment.
        result: As ``evaluate.py --json`` prints it.
        how: The protocol, in a line.
        remarks: See `Card`.
    """
    if film := result.get("video"):  # which a card has beside it
        result = {**result, "video": {**film, "file": Path(film["file"]).name}}
        how = f"{how}; the film's score is {film['score']:g}"
    return Card(
        subject=subject,
        metric="mean_reward",
        value=f"{result['mean']:.2f} +/- {result['std']:.2f}",
        measured=how,
        result=result,
        tags=("deep-reinforcement-learning", "actor-critic"),
        remarks=remarks,
    )
