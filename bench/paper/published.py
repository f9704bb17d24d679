"""What the paper says of its experiments, as far as its text has numbers; its pictures are not copied here.

Mohamad, Alamri and Bouchachia, Machine Learning 2022, section 4. Nothing here is read off a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

GAMES = ("Pong", "Boxing", "Seaquest", "SpaceInvaders", "Amidar", "Qbert")
"""Of Fig. 6 and Table 2, in the text's order."""

NODES = (20, 30, 40, 60)
"""Cluster sizes of Fig. 5 and 6, section 4.2.2."""

CORES = 28
"""Of a node, section 4.2.1."""

REPEATS = 5
"""Of each experiment, section 4.2.1."""

MINUTES = 30
"""Of a run, section 4.2.2."""

SAYS = {
    "fig1": "linear up to some 14 workers, less than linear beyond (p = B = 1, M = 36)",
    "fig2": "linear up to some 8 threads, less than linear beyond (one worker, B = 15)",
    "fig3": "grows with p = nW, more slowly beyond 6; the larger B is, the less slowly",
    "fig4": "the more nodes and threads, the sooner a perplexity is reached (B = 15)",
    "fig5": "with B = 1 about the same speed for any number of nodes; with larger B it grows with them",
    "fig6": "many nodes: a larger B is sooner there; few nodes: no gain; more than 40 nodes: no gain",
}
"""What the text says that each figure shows."""

LINEAR_UP_TO = {"fig1": 14, "fig2": 8}
"""Workers, or threads, up to which the text calls the speed-up linear."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of Table 2, or of scores from elsewhere to see it by. None: not in the paper's text."""

    name: str
    source: str
    scores: tuple[float | None, ...] = (None,) * len(GAMES)
    """By `GAMES`."""
    mean: float | None = None
    """The text's own average over games."""
    minutes: str | None = None
    note: str = ""


#: Table 2's own rows. Its cells are not in the text that this project has; what the text says of them is.
TABLE = (
    Entry(
        name="HSA2C",
        source="section 4.2.3",
        mean=665,
        minutes="30.63 on the average (section 4: 21.95)",
        note="560 cores; SpaceInvaders in less than 10 min (section 4)",
    ),
    Entry(
        name="DDRL A3C",
        source="Adamski et al. 2018; section 4.2.3",
        scores=(20, 98, 1832, 650, None, None),
        mean=650,
        minutes="82.5 on the average; 21 in the title of Adamski et al.",
        note="768 cores (778 in section 4.2.3)",
    ),
    Entry(name="GA3C", source="Table 2", note="one node and its GPU; its figures are not in the text"),
    Entry(name="BA3C", source="Table 2", note="one node; its figures are not in the text"),
    Entry(name="A3C", source="section 4", minutes="more than 825 (13.75 h)", note="one node"),
)

#: Published by others for algorithms of the same kind: 10M agent steps are 10 to 100 times those of our small runs.
ELSEWHERE = (
    Entry(
        name="A2C, 10M steps",
        source="Schulman et al. 2017 (PPO)",
        scores=(19.7, 17.7, 1714, 744.5, 380.8, 10066),
    ),
    Entry(
        name="A2C, 10M steps",
        source="Stable-Baselines3",
        scores=(17.3, None, 1721, 627, None, 3882),
    ),
    Entry(
        name="A3C, 80M steps",
        source="Fortunato et al. 2018 (NoisyNet)",
        scores=(7, 91, 1744, 1034, 904, 18586),
    ),
)
