"""A run on one page: an HTML file with pictures in it, readable anywhere, without a server and without a network."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c.config.loading import flatten
from hsa2c.errors import ConfigError
from hsa2c.observe.jsonlines import Row
from hsa2c.observe.node_pictures import pictures, read_totals
from hsa2c.observe.plot import COLOURS, LABELS, STYLE
from hsa2c.observe.runlog import (
    EVALUATE,
    JOURNAL,
    ROW_KEYS,
    number,
    place_of,
    read_history,
    read_rows,
    read_settings,
)
from hsa2c.words import PictureWords

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Section = tuple[str, tuple[str, ...], str]

#: What every run has to show, in this order: title, prefixes of the tags, what they are about.
SECTIONS: Sequence[Section] = (
    ("Evaluation", ("evaluate",), "Of v, in a process of its own while training goes on."),
    ("Speed", ("speed",), "Of all nodes together, and of each."),
    (
        "Where the time goes",
        ("time",),
        "Shares of the actor-learners' time, over all nodes; and the share of a node's time in which it exchanges.",
    ),
    (
        "Exchanges",
        ("exchange",),
        "B, updates of each process between two exchanges: mean, least and most of the nodes. Seconds of an update and "
        "of an exchange; the share of its time that a node loses to exchanges; the factor on eta that follows from B.",
    ),
    (
        "Staleness",
        ("staleness",),
        "Delay tau of the deltas: global steps between the v that a node had pulled and the step that took its delta. "
        "Overlap of the updates: those that other processes of the node ended between an update's read and its end.",
    ),
    (
        "Deltas",
        ("delta",),
        "Norm of the deltas; their cosine with the mean delta of the step before; and their agreement, the mean cosine "
        "with the mean of their own step, weighted by norm: 1 where all point the same way, M^-0.5 by chance.",
    ),
    (
        "The master",
        ("master",),
        "Share of its time in which it is busy, that is not looking for messages while there are none: what is missing "
        "to 1 is left for more nodes. And the share in which its thread has a processor.",
    ),
    ("Nodes and faults", ("nodes", "faults"), "Nodes that work, and what was lost, refused and replaced."),
)
_RATES = ("Rates", ("rate",), "Local learning rate eta and global learning rate rho.")
_LEARNING = "Learning"  # what no other section is about
_LEFT_OUT = frozenset({"left_s", "progress", "elapsed_s", f"{EVALUATE}step", f"{EVALUATE}elapsed_s"})
_ACROSS = 3
_MOST_POINTS = 2000  # of a curve: more than the picture has dots
_MOST_EVENTS = 300
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.15em; margin: 2em 0 0.3em; }
p { margin: 0.2em 0; color: #555; } img { width: 100%; }
table { border-collapse: collapse; font-size: 0.9em; } td { padding: 0.1em 1em 0.1em 0; vertical-align: top; }
td:first-child { color: #777; white-space: nowrap; } .node_lost, .warning { color: #a65e00; } .error { color: #b00020; }
"""


def write(run: Path, output: Path, words: PictureWords | None = None) -> None:
    """Write the page of a run, whole or not at all.

    Args:
        run: Run directory.
        output: The file to write.
        words: The application's.

    Raises:
        ConfigError: There is no such run, it has no rows yet, or the file cannot be written.
    """
    page = render(run, words)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ConfigError(f"{output}: cannot be written: {error.strerror or error}") from None


def render(run: Path, words: PictureWords | None = None) -> str:
    """The page of a run, as `write` writes it."""
    from matplotlib import rc_context

    words = words or PictureWords()
    labels = {**LABELS, **words.labels}

    history = [row for row in read_history(run) if number(row.get("elapsed_s")) is not None]
    if not history:
        raise ConfigError(f"{run}: no rows yet, nothing to report")
    events = read_rows(run / JOURNAL) if (run / JOURNAL).exists() else []
    name = run.resolve().name
    parts = [f"<h1>{html.escape(name)}</h1>", facts(run, history, events, words.subject)]
    with rc_context(STYLE):
        of_nodes = pictures(read_totals(run))
        for title, tags, about in sections_of(history, words.sections):
            parts.append(f"<h2>{html.escape(title)}</h2>")
            if about:
                parts.append(f"<p>{html.escape(about)}</p>")
            parts.append(_picture(draw(history, tags, labels), title))
            if title in of_nodes:
                text, figure = of_nodes[title]
                parts += [f"<p>{html.escape(text)}</p>", _picture(figure, f"{title}, by node")]
    parts.append(story(events))
    head = f'<meta charset="utf-8"><title>{html.escape(name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _processes(cluster: Row, events: Sequence[Row]) -> str:
    """P: as configured, else as the nodes have it."""
    if (p := cluster.get("processes")) is not None:
        return str(p)
    last = {
        str(event.get("node")): event.get("actor_learners") for event in events if event.get("kind") == "node_ready"
    }
    numbers = sorted({len(pids) for pids in last.values() if isinstance(pids, list) and pids})
    return " to ".join(str(number) for number in dict.fromkeys((*numbers[:1], *numbers[-1:]))) or "by their cores"


def facts(run: Path, history: Sequence[Row], events: Sequence[Row], subject: str | None) -> str:
    """What the run was and how it ended, as a line and a table."""
    last = history[-1]
    stop = next((event for event in reversed(events) if event.get("kind") == "stop"), None)
    config = read_settings(run / "config.yaml")
    about = read_settings(run / "about.yaml")
    cluster, dpsgd = (_mapping(config.get(name)) for name in ("cluster", "dpsgd"))
    hosts = sorted({str(event["host"]) for event in events if event.get("host")})
    found = {
        "what": flatten("", config).get(f".{subject}"),
        "state": stop.get("message") if stop else "no word of its end",
        "trained for": f"{last['elapsed_s'] / 60:.1f} min, step {last['step']:,}",
        "nodes, processes": f"{cluster.get('nodes')} of {_processes(cluster, events)}",
        "masters": masters if (masters := cluster.get("masters", 1)) != 1 else None,
        "B, M, exchange": f"{dpsgd.get('local_updates')}, {dpsgd.get('deltas_per_step')}, {dpsgd.get('exchange')}",
        "deltas": dpsgd.get("delta_dtype"),
        "hosts": ", ".join(hosts),
        "machine": about.get("processor"),
        "commit": about.get("commit"),
    }
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(str(value))}</td></tr>"
        for key, value in found.items()
        if value not in (None, "")
    )
    return f"<table>{rows}</table>"


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def sections_of(history: Sequence[Row], own: Sequence[Section]) -> list[tuple[str, list[str], str]]:
    """Title, tags and explanation of each section that has something to show."""
    tags = [
        tag
        for tag in dict.fromkeys(tag for row in history for tag in row)
        if tag not in ROW_KEYS | _LEFT_OUT and any(number(row.get(tag)) is not None for row in history)
    ]
    tags = [tag for tag in tags if not tag.startswith("faults/") or any(row.get(tag) for row in history)]
    found, seen = [], set()
    for title, prefixes, about in (*SECTIONS, *own, _RATES):
        theirs = [tag for prefix in prefixes for tag in tags if tag.startswith(f"{prefix}/")]
        seen |= set(theirs)
        found.append((title, theirs, about))
    rest = [tag for tag in tags if tag not in seen]
    groups = dict.fromkeys(tag.partition("/")[0] for tag in rest if "/" in tag)
    found.insert(0, (_LEARNING, [tag for group in groups for tag in rest if tag.startswith(f"{group}/")], ""))
    found.append(("Counters and others", [tag for tag in rest if "/" not in tag], ""))
    return [section for section in found if section[1]]


def draw(history: Sequence[Row], tags: Sequence[str], labels: Mapping[str, str]) -> Figure:
    """A small panel for each tag; shares of time, the nodes' speeds and the master's load in one panel each."""
    from matplotlib.figure import Figure

    shares = [tag for tag in tags if tag.startswith("time/") and tag.endswith("_share")]
    nodes = [tag for tag in tags if tag.startswith("speed/node_")]
    load = [tag for tag in tags if tag.startswith("master/")]
    panels: list[list[str]] = [group for group in (shares, nodes, load) if len(group) > 1]
    panels += [[tag] for tag in tags if not any(tag in group for group in panels)]
    down = math.ceil(len(panels) / _ACROSS)
    figure = Figure(figsize=(11, 2.4 * down + 0.2), dpi=110, layout="constrained")
    for place, group in enumerate(panels):
        axes = figure.add_subplot(down, _ACROSS, place + 1)
        if group is shares:
            _stack(axes, history, group)
        else:
            _lines(axes, history, group, labels)
        axes.set_xlabel("minutes", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.01)
    return figure


def _lines(axes: Axes, history: Sequence[Row], tags: Sequence[str], labels: Mapping[str, str]) -> None:
    for place, tag in enumerate(tags):
        points = dict.fromkeys((place_of(row, tag)[1], number(row.get(tag))) for row in thin(history))
        known = [(x / 60, y) for x, y in points if x is not None and y is not None]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(*zip(*known, strict=True), color=colour, linewidth=1.1, marker="o" if len(known) == 1 else None)
    title = labels.get(tags[0], tags[0]) if len(tags) == 1 else f"{tags[0].rstrip('0123456789')}* ({len(tags)})"
    if tags[0].startswith("master/"):
        title = "share of the master's time"
        axes.set_ylim(bottom=0)
        axes.legend([tag.removeprefix("master/") for tag in tags], fontsize=6, loc="best")
    axes.set_title(title, fontsize=8, loc="left", fontweight="normal")


def _stack(axes: Axes, history: Sequence[Row], tags: Sequence[str]) -> None:
    rows = [row for row in thin(history) if any(number(row.get(tag)) is not None for tag in tags)]
    minutes = [row["elapsed_s"] / 60 for row in rows]
    values = [[number(row.get(tag)) or 0.0 for row in rows] for tag in tags]
    names = [tag.removeprefix("time/").removesuffix("_share") for tag in tags]
    axes.stackplot(minutes, *values, labels=names, colors=COLOURS, linewidth=0)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=6, loc="lower left")
    axes.set_title("share of the actor-learners' time", fontsize=8, loc="left", fontweight="normal")


def thin(history: Sequence[Row], most: int = _MOST_POINTS) -> Sequence[Row]:
    """Every so many rows, so that about `most` are left; more only where fewer than twice as many were there."""
    return history[:: max(1, len(history) // most)]


def _picture(figure: Figure, title: str) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{html.escape(title)}" src="data:image/png;base64,{data}">'


def _clock(value: object) -> str:
    """Seconds since 1970 as date and time; nothing for what is none."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(number(value) or 0))
    except (OverflowError, ValueError, OSError):
        return ""


def story(events: Sequence[Mapping[str, Any]]) -> str:
    """What happened, in words; checkpoints and evaluations left out."""
    told = [event for event in events if event.get("kind") not in ("checkpoint", "evaluation")]
    rows = []
    for event in told[-_MOST_EVENTS:]:
        at = _clock(event.get("time"))
        kind, message = (html.escape(str(event.get(key, ""))) for key in ("kind", "message"))
        rows.append(f'<tr class="{kind}"><td>{at}</td><td>{kind.replace("_", " ")}</td><td>{message}</td></tr>')
    left_out = len(told) - len(rows)
    note = f"<p>{left_out} earlier events are in {JOURNAL}.</p>" if left_out else ""
    return f"<h2>What happened</h2>{note}<table>{''.join(rows)}</table>" if rows else ""
