"""Topics as a picture: the likeliest words of each, as bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsa2c.observe.plot import COLOURS, STYLE, save

_ACROSS = 5
_MOST_TOPICS = 40


def draw(topics: Sequence[dict[str, Any]], output: Path, *, title: str) -> None:
    """Draw up to 40 topics, as `hsa2c.examples.lda.commands.show.top_words` gives them; the picture is whole, or not
    there.

    Raises:
        ConfigError: The format is unknown, or the folder cannot be written to.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = topics[:_MOST_TOPICS]
    words = max(len(topic["words"]) for topic in shown)
    across = min(_ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    with rc_context({**STYLE, "axes.grid": False, "axes.titlesize": 9}):
        figure = Figure(figsize=(2.6 * across, (0.55 + 0.19 * words) * down + 0.6), layout="constrained")
        figure.suptitle(_plain(title), fontsize=13, fontweight="bold")
        for number, topic in enumerate(shown):
            axes = figure.add_subplot(down, across, number + 1)
            names = [_plain(word) for word, _ in topic["words"]]
            values = [probability for _, probability in topic["words"]]
            axes.barh(range(len(values)), values, color=COLOURS[0], height=0.75)
            axes.set_yticks(range(len(values)), names, fontsize=8)
            axes.invert_yaxis()
            axes.tick_params(length=0)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
            axes.set_title(f"topic {topic['topic']}: {topic['share']:.1%} of tokens")
        if len(topics) > len(shown):
            figure.supxlabel(f"the largest {len(shown)} of {len(topics)} topics", fontsize=9)
        save(figure, output)


def _plain(text: str) -> str:
    """Text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")
