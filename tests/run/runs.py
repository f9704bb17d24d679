"""Runs that only stand in their directories, for tests of how one begins and goes on."""

import socket

import numpy as np
import yaml

from hsa2c.agents.application import APPLICATION
from hsa2c.cluster.world import ALONE
from hsa2c.config.loading import read_yaml, to_dict
from hsa2c.observe.runlog import read_rows
from hsa2c.run import begin
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint

HERE = socket.gethostname()
OTHERS = ("192.0.2.7", "192.0.2.8", "192.0.2.9")  # addresses of no host (RFC 5737)


def add_checkpoint(run, t, **counters):
    checkpoint = Checkpoint(
        v=np.zeros(3, np.float32),
        momentum=np.zeros(3, np.float32),
        optimiser_states=(),
        t=t,
        counters={"agent_steps": 10 * t, "sessions": run.session, "elapsed_s": 1.0} | counters,
        config=to_dict(run.config),
        identity=APPLICATION.identity(run.config),
    )
    return checkpoints.save(run.directory / "checkpoints", checkpoint, keep=3)


def resume(directory, **given):
    fields = {key.replace("__", "."): value for key, value in given.items()}
    return begin.resume(APPLICATION, directory, fields, None, ALONE)


def as_of_0_1(directory):
    """Leave only the configuration that 0.1 saved."""
    (directory / "asked.yaml").unlink()
    config = read_yaml(directory / "config.yaml")
    del config["dpsgd"]["rescale_rate"]
    (directory / "config.yaml").write_text(yaml.safe_dump(config))


def events(directory, kind):
    return [row for row in read_rows(directory / "journal.jsonl") if row["kind"] == kind]
