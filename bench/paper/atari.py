"""What Fig. 5, Fig. 6 and Table 2 have in common: the runs of HSA2C as published, and a run's best score over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.paper.jobs import Job
from bench.paper.published import CORES, GAMES, MINUTES, NODES, REPEATS

BS = (1, 2, 4, 8, 16)
"""B of the runs at the paper's scale. The text does not say which ones the paper has beside 1."""

BEST = "score/best_mean_100"


def jobs(games: Iterable[str] = GAMES) -> list[Job]:
    """Each game, number of nodes and B, five times, by `configs/paper/hsa2c.yaml`."""
    return [
        Job(
            program="train",
            name=f"{game}-nodes-{nodes}-B-{B}-seed-{seed}",
            options=("--config", "paper/hsa2c", "--game", game, "--B", str(B), "--seed", str(seed)),
            nodes=nodes,
            p=CORES,
            minutes=MINUTES,
            key={"game": game, "nodes": nodes, "B": B, "seed": seed},
        )
        for game in games
        for nodes in NODES
        for B in BS
        for seed in range(1, REPEATS + 1)
    ]


def scores(seen: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """When the best mean of 100 games so far changed, in seconds of training, and to what."""
    seconds: list[float] = []
    best: list[float] = []
    for row in seen:
        value = row.get(BEST)
        if value is not None and (not best or value > best[-1]):
            seconds.append(row["elapsed_s"])
            best.append(value)
    return {"seconds": seconds, "score": best}
