"""The text of a model card, README.md with YAML in front, as the Hugging Face hub reads it."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import yaml

from hsa2c.application import Application
from hsa2c.cluster.machine import version
from hsa2c.words import Card

LIBRARY = "hsa2c"
"""What the hub calls this package."""

CHECKPOINT, SETTINGS, RESULTS, CURVES, FILM = (
    "best.safetensors",
    "config.yaml",
    "results.json",
    "curves.png",
    "replay.mp4",
)
"""Files beside a card; the hub plays the last one."""

_FENCE = "---\n"


def write(
    app: Application,
    config: Any,
    card: Card,
    *,
    counters: Mapping[str, Any],
    code: Sequence[str],
    files: Collection[str],
) -> str:
    """A card.

    Args:
        app: What was trained.
        config: Its settings.
        card: What was measured.
        counters: What the run has counted until the checkpoint.
        code: Names of code that is needed, and not there.
        files: Those beside it.
    """
    parts = [
        f"# {card.subject}\n\nTrained with {LIBRARY} {version(LIBRARY) or ''}. {app.title(config)}.",
        f"## Measured\n\n{card.metric} **{card.value}**: {card.measured}.\n[{RESULTS}]({RESULTS}) has each number.",
        _use(code),
        f"## Training\n\n{_training(app, counters)} [{SETTINGS}]({SETTINGS}) has every setting.",
        f"![Learning curves]({CURVES})" if CURVES in files else "",
        f"## Measured with\n\n{_versions(app)}",
    ]
    return f"{_FENCE}{_front(app, card)}{_FENCE}\n" + "\n\n".join(part for part in parts if part) + "\n"


def is_card(text: str) -> bool:
    """Whether a text is a card of this package."""
    if not text.startswith(_FENCE):
        return False
    try:
        front = yaml.safe_load(text.removeprefix(_FENCE).partition(f"\n{_FENCE}")[0])
    except yaml.YAMLError:
        return False
    return isinstance(front, dict) and front.get("library_name") == LIBRARY


def _front(app: Application, card: Card) -> str:
    task = {"type": card.task, "name": card.task}
    metric = {"type": card.metric, "value": card.value, "name": card.metric, "verified": False}
    result = {"task": task, "dataset": {"name": card.subject, "type": card.subject}, "metrics": [metric]}
    values = {
        "library_name": LIBRARY,
        "tags": [card.subject, card.task, *card.tags, LIBRARY],
        "model-index": [{"name": LIBRARY, "results": [result]}],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _use(code: Sequence[str]) -> str:
    agreed = ", trust_code=True" if code else ""
    said = (
        "## Use\n\n"
        "    import hsa2c\n"
        f'    policy = hsa2c.load("this-folder"{agreed})    # or "hf:user/name", from the hub\n'
        "    action = policy(observation)\n\n"
        f"A folder is evaluated again by `hsa2c evaluate this-folder{' --trust-code' if code else ''}`."
    )
    if not code:
        return said
    needed = ", ".join(f"`{name}`" for name in code)
    return (
        f"{said}\n\n## Code that it needs\n\nThis folder has no code, but needs {needed}. Get it from who trained this,"
        " read it, and put it where Python finds it, such as in the current directory. It is imported only if you say"
        " so (`trust_code=True`, `--trust-code`)."
    )


def _training(app: Application, counters: Mapping[str, Any]) -> str:
    counted = {name.replace("_", " "): counters.get(name) for name in app.summary}
    said = [f"{name} {value:,.0f}" for name, value in counted.items() if isinstance(value, int | float)]
    if isinstance(elapsed_s := counters.get("elapsed_s"), int | float):
        said = [f"{elapsed_s / 60:,.1f} minutes", *said]
    return f"Until this checkpoint: {', '.join(said)}." if said else ""


def _versions(app: Application) -> str:
    names = (LIBRARY, "torch", "numpy", *app.preflight.packages)
    rows = [("python", platform.python_version()), *((name, version(name) or "-") for name in names)]
    return "| package | version |\n|---|---|\n" + "\n".join(f"| {name} | {number} |" for name, number in rows)


def results(card: Card) -> str:
    """What was measured, as JSON."""
    return json.dumps(card.result, indent=2, allow_nan=False) + "\n"
