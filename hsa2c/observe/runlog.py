"""What a run writes about itself while it trains, and how that is read back.

A run directory holds ``metrics.jsonl`` (a row of numbers every few seconds), ``journal.jsonl`` (what happened, in
words), ``nodes.jsonl`` (the numbers of each node, more rarely) and TensorBoard event files with those of the first.
They are the whole record: the console shows them, plots are drawn from them. Files are only appended to, one write for
one line, so a reader at any moment, or after a ``kill -9``, meets whole lines and at most one torn one at the end. The
next writer mends that one first.

A run that is resumed goes on in the same files as a new session. It may start from a checkpoint older than the last
row; what earlier sessions wrote after that step then never happened, see `append_row`.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from hsa2c.errors import ConfigError
from hsa2c.observe.jsonlines import Lines, Row, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METRICS = "metrics.jsonl"
JOURNAL = "journal.jsonl"
NODES = "nodes.jsonl"
ADDED = "callbacks.jsonl"
"""What callbacks have added to rows, by session and step."""

EVALUATE = "evaluate/"
"""Begins the keys of what an evaluation came to. It is of an earlier step than its row, which ``evaluate/step`` tells,
and it is in every row until there is a newer one."""

#: Keys that every row has; the others are the values.
ROW_KEYS = frozenset({"time", "session", "step"})


class Journal:
    """What happened in a run, one event a line; the master and the launcher may both append to one journal."""

    def __init__(self, directory: Path, *, session: int) -> None:
        """Open ``journal.jsonl`` in `directory`, which is made if it is missing."""
        self._session = session
        self._lines = Lines(directory / JOURNAL)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Append an event.

        Args:
            kind: One word that programs look for: "start", "node_ready", "training", "checkpoint", "warning", "error",
                "stop", "resume".
            message: The same for people, one line.
            fields: More, as plain values; what JSON does not know is written as text.
        """
        head = {"time": round(time.time(), 3), "session": self._session, "kind": kind, "message": message}
        self._lines.append(head | fields)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._lines.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class RunLog:
    """The master's log: rows of numbers to JSON lines and TensorBoard, events to the journal.

    A full disk does not end training: what cannot be written is counted, and told as soon as the journal can be written
    again.
    """

    def __init__(self, directory: Path, *, session: int, purge_step: int | None = None) -> None:
        """Open the files of a run for appending.

        Args:
            directory: The run's directory; made if it is missing.
            session: Which start of this run it is; a resume has a higher number.
            purge_step: The step a resumed run goes on from. What is on file after it is void: TensorBoard is told so,
                and a row without values marks the step in ``metrics.jsonl``. None: a fresh run.
        """
        self._directory = directory
        self._session = session
        self._rows = Lines(directory / METRICS)
        self._nodes = Lines(directory / NODES)
        self._journal = Journal(directory, session=session)
        if purge_step is not None:
            self._append_row(time.time(), purge_step, {})
            self._append_row(time.time(), purge_step, {}, self._nodes)
            purge_step += 1  # TensorBoard drops the step itself too
        self._board: Any = self._open_board(purge_step)
        self._unwritten = 0
        self._why = ""
        self._evaluated: Any = None  # the step of the evaluation that TensorBoard has

    def row(
        self,
        step: int,
        values: Mapping[str, float | int | None],
        histograms: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Append one row, visible to readers when this returns.

        Args:
            step: Progress of the run, TensorBoard's x axis (`Tracker.work`).
            values: Numbers by tag ("staleness/mean"); None or a non-finite one is null in the file and absent from
                TensorBoard.
            histograms: Samples by tag, for TensorBoard only; empty ones are left out.
        """
        now = time.time()
        plain = {tag: _plain_number(value) for tag, value in values.items()}
        with self._surviving():
            self._append_row(now, step, plain)
        with self._surviving():
            self._draw(now, step, plain, histograms or {})

    def nodes(self, step: int, values: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> None:
        """Append a line to ``nodes.jsonl``: of a run with many nodes, too much for a row and for TensorBoard.

        Args:
            step: As for `row`.
            values: What the line says of its time.
            nodes: Plain values of each node.
        """
        with self._surviving():
            self._append_row(time.time(), step, {**values, "nodes": nodes}, self._nodes)

    def event(self, kind: str, message: str, **fields: Any) -> None:
        """Append an event to the journal, see `Journal.event`."""
        with self._surviving():
            self._journal.event(kind, message, **fields)

    def close(self) -> None:
        """Write out and close all files; a second call does nothing."""
        self._rows.close()
        self._nodes.close()
        self._journal.close()
        with contextlib.suppress(OSError):
            if self._board:
                self._board.close()

    def _open_board(self, purge_step: int | None = None) -> Any:
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second: readers of this module do without

        return SummaryWriter(str(self._directory), purge_step=purge_step)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """Count what cannot be written, and tell of it when something can."""
        try:
            yield
            if self._unwritten:
                message = f"{self._unwritten} rows or events could not be written: {self._why}"
                self._journal.event("warning", message)
                self._unwritten = 0
        except OSError as error:
            self._unwritten += 1
            self._why = error.strerror or str(error)

    def _draw(
        self, now: float, step: int, values: Mapping[str, float | int | None], histograms: Mapping[str, Sequence[float]]
    ) -> None:
        """A row's points in TensorBoard."""
        board, self._board = self._board or self._open_board(), None  # one that has failed does so for ever
        evaluated = values.get(f"{EVALUATE}step")
        for tag, value in values.items():
            if value is not None and not tag.startswith(EVALUATE):
                board.add_scalar(tag, value, global_step=step, walltime=now)
            elif value is not None and evaluated != self._evaluated:
                board.add_scalar(tag, value, global_step=evaluated, walltime=now)
        self._evaluated = evaluated
        for tag, samples in histograms.items():
            _add_histogram(board, tag, samples, step, now)
        board.flush()
        self._board = board

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _append_row(self, now: float, step: int, values: Mapping[str, Any], lines: Lines | None = None) -> None:
        assert not ROW_KEYS & values.keys(), f"reserved keys among the values: {sorted(ROW_KEYS & values.keys())}"
        head = {"time": round(now, 3), "session": self._session, "step": int(step)}
        (lines or self._rows).append(head | dict(values))


def _add_histogram(board: Any, tag: str, samples: Sequence[float], step: int, now: float) -> None:
    import numpy as np

    array = np.asarray(samples, dtype=np.float64).ravel()
    array = array[np.isfinite(array)]
    if array.size:
        board.add_histogram(tag, array, global_step=step, walltime=now)


def read_rows(path: Path) -> list[Row]:
    """All rows (or events) of a JSON-lines file; torn or foreign lines are passed over.

    Raises:
        ConfigError: The file is missing or unreadable.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    return list(parse(text))


def read_settings(path: Path) -> dict[str, Any]:
    """What a YAML file of a run says; nothing where it is missing or is no mapping."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


def metrics_path(run: Path) -> Path:
    """The metrics file of a run directory; the file itself is taken as well."""
    return run if run.suffix == ".jsonl" else run / METRICS


def append_row(history: list[Row], row: Row) -> None:
    """Add a row to a run's history; the first row of a session voids what earlier sessions wrote after its step.

    So a curve over a resume from an older checkpoint is the curve of one run. Rows without a step are ignored.
    """
    step = number(row.get("step"))
    if step is None:
        return
    if history and row.get("session") != history[-1].get("session"):
        history[:] = [earlier for earlier in history if earlier["step"] <= step]
    history.append(row)


def read_history(run: Path) -> list[Row]:
    """The rows of a run as of one run, see `append_row`.

    Args:
        run: A run directory, or its ``metrics.jsonl``.

    Raises:
        ConfigError: There is no readable metrics file.
    """
    history: list[Row] = []
    for row in read_rows(metrics_path(run)):
        append_row(history, row)
    added = metrics_path(run).with_name(ADDED)
    more = {(row.get("session"), row.get("step")): row for row in (read_rows(added) if added.exists() else ())}
    return [{**more.get((row.get("session"), row.get("step")), {}), **row} for row in history]


def read_curve(run: Path, tag: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A value over the whole run, resumes included; rows where it is missing or null are left out.

    Args:
        run: A run directory, or its ``metrics.jsonl``.
        tag: Which value.

    Returns:
        Steps, seconds of training (the rows' "elapsed_s", NaN where that is missing) and values, each `[rows]`.

    Raises:
        ConfigError: There is no readable metrics file.
    """
    import numpy as np

    points = [(*place_of(row, tag), number(row.get(tag))) for row in read_history(run)]
    if tag.startswith(EVALUATE):
        points = list(dict.fromkeys(points))
    table = [(step, math.nan if s is None else s, value) for step, s, value in points if value is not None]
    steps, elapsed_s, values = np.array(table, dtype=np.float64).reshape(-1, 3).T
    return steps, elapsed_s, values


def place_of(row: Row, tag: str) -> tuple[float | int | None, float | int | None]:
    """Where a value of a row belongs in a curve: its step, and its seconds of training; None where that is missing."""
    of = EVALUATE if tag.startswith(EVALUATE) else ""
    return number(row.get(f"{of}step")), number(row.get(f"{of}elapsed_s"))


def number(value: Any) -> float | int | None:
    """`value` if it is a finite number that fits a float, else None: rows on file may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


class Tail:
    """Follows a JSON-lines file that another process appends to."""

    def __init__(self, path: Path) -> None:
        """Start at the beginning of `path`, which need not exist yet."""
        self._path = path
        self._offset = 0

    def new(self) -> list[Row]:
        """The whole lines since the last call, none while there is no file; a line half written waits."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return list(parse(whole))


def _plain_number(value: Any) -> float | int | None:
    """A Python number for a NumPy or torch one; None for None and for what is not finite."""
    if value is None:
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None
