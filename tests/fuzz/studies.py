"""Readers of a study's directory: its plan, and Optuna's journal of its trials."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from hsa2c.tuning.study import read_plan
from tests.fuzz.harness import Reader
from tests.tuning.studies import complete, study


def _seed(name):
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.closing(study(folder)) as studied:
            complete(studied, 1.0, levels=2)
            studied.end(studied.begin(), why="it was broken")
        return Path(folder, name).read_bytes()


def read_study_plan(path):
    """``study.yaml``."""
    shutil.move(path, path.with_name("study.yaml"))
    assert read_plan(path.parent).trials >= 1


def read_study_log(path):
    """``trials.log``: read, mended, and gone on with."""
    folder = path.with_name("study")
    folder.mkdir()
    shutil.move(path, folder / "trials.log")
    with contextlib.closing(study(folder, trials=1000)) as studied:
        complete(studied, 2.0, levels=1)
        assert studied.ranked()


READERS = {
    "study-plan": Reader(".yaml", [_seed("study.yaml")], read_study_plan),
    "study-log": Reader(".jsonl", [_seed("trials.log")], read_study_log),
}
