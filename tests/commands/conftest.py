import json

import numpy as np
import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.world import World
from hsa2c.config.loading import to_dict
from hsa2c.run import begin
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint


def files_of(folder):
    """Everything below a folder with its content, to see that nothing was written."""
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that must be refused; gives back its one line."""

    def refused(main, *arguments):
        before = files_of(tmp_path)
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse's own complaints
            code = end.code
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1, err
        assert err.endswith("\n")
        assert files_of(tmp_path) == before
        return err.strip()

    return refused


@pytest.fixture
def make_run(tmp_path):
    """A run directory with one checkpoint; its v is real where `v` is True, else a stub."""

    def make_run(name="old", *, t=10, v=False, best=False, counters=None, identity=None, **given):
        given = {"output.run_dir": str(tmp_path), "output.name": name} | given
        run = begin.prepare(APPLICATION, given, None, World(0, 1, started_by_mpi=False))
        with run.open():
            pass
        vector = APPLICATION.initial(run.config) if v else np.ones(3, np.float32)
        checkpoint = Checkpoint(
            v=vector,
            momentum=np.zeros_like(vector),
            optimiser_states=(np.zeros(2 * vector.size + 1, np.float32),),
            t=t,
            counters={"agent_steps": 200, "sessions": 1, "elapsed_s": 90.0} | (counters or {}),
            config=to_dict(run.config),
            identity=APPLICATION.identity(run.config) | (identity or {}),
        )
        checkpoints.save(run.directory / "checkpoints", checkpoint, keep=3)
        if best:
            checkpoints.save_best(run.directory / "checkpoints", checkpoint)
        return run.directory

    return make_run


@pytest.fixture
def write_rows(tmp_path):
    """A run directory with nothing but rows."""

    def write_rows(name, rows):
        run = tmp_path / name
        run.mkdir()
        (run / "metrics.jsonl").write_text(
            "".join(json.dumps({"time": 0.0, "session": 1} | row) + "\n" for row in rows)
        )
        return run

    return write_rows
