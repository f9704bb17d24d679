"""What the Atari application is called where people read: see `hsa2c.words`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hsa2c.words import Card, CommandWords, Option, PictureWords, PreflightWords

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
            flag="--agent-steps",
            group="stop",
            field="stop.agent_steps",
            type=int,
            metavar="N",
            help="actions over all nodes",
        ),
        Option(
            flag="--score",
            group="stop",
            field="stop.score",
            type=float,
            metavar="S",
            after="--minutes",
            help="mean score of the last 100 training games",
        ),
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
    tags=("score/mean_100", "speed/agent_steps_per_s", "policy/entropy"),
    labels={
        "score/mean_100": "mean score of the last 100 games",
        "score/best_mean_100": "best mean score of 100 games",
        "speed/agent_steps_per_s": "agent steps per second",
        "policy/entropy": "policy entropy (nats)",
        "gradient/norm": "gradient norm",
        "loss/policy": "policy loss",
        "loss/value": "value loss",
        "value/explained_variance": "explained variance of the value",
    },
    sections=(("Policy and value", ("policy", "value", "loss", "gradient"), ""),),
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
