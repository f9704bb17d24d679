"""Readers of what a run keeps and is told: checkpoints, recordings, logs, host files, configurations."""

import contextlib
import io
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save as to_safetensors

from hsa2c.agents.application import APPLICATION, AtariConfig
from hsa2c.cluster import hosts
from hsa2c.commands.replay import replay
from hsa2c.config.loading import build, merge, nested, parse_assignment, read_yaml, to_dict, to_yaml
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import ConfigError
from hsa2c.examples.lda.settings import LDAConfig
from hsa2c.observe import report as pages
from hsa2c.observe.node_pictures import read_totals, slowest_text
from hsa2c.observe.runlog import NODES, number, read_curve, read_history, read_rows
from hsa2c.recording import format as recordings
from hsa2c.recording.format import Frame, Kind, Writer
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run import checkpoint_file
from hsa2c.run.checkpoint import Checkpoint
from tests.fuzz.harness import Reader

DIM = 3
V = np.array([1, -2, 0.5], np.float32)


def _checkpoint(**changes):
    values = {
        "v": V,
        "momentum": V / 2,
        "optimiser_states": (np.ones(2, np.float32), np.zeros(2, np.float32)),
        "t": 7,
        "counters": {"agent_steps": 12, "best_saved": None, "elapsed_s": 1.5},
        "config": {"seed": 1, "dpsgd": {"momentum": 0.5}},
        "identity": {"application": "hsa2c", "game": "Pong"},
    }
    return Checkpoint(**(values | changes))


def _files(**checkpoint):
    return checkpoint_file.encode(Path("x"), _checkpoint(**checkpoint))


def read_checkpoint(path):
    """A checkpoint file: as it is, and in a folder beside good ones and as the only one."""
    checkpoint = checkpoint_file.load(path)
    assert checkpoint.v.dtype == checkpoint.momentum.dtype == np.float32
    assert checkpoint.v.shape == checkpoint.momentum.shape == (checkpoint.v.size,)
    assert np.isfinite(checkpoint.v).all()
    assert checkpoint.t >= 0
    assert all(isinstance(value, str) for value in checkpoint.identity.values())
    checkpoint_file.encode(path, checkpoint)


def read_beside(path):
    """A damaged checkpoint beside a good one: that is found, and three are kept."""
    folder = path.parent / "checkpoints"
    checkpoints.save(folder, _checkpoint(t=3), keep=3)
    (folder / "step-000000009.safetensors").write_bytes(path.read_bytes())
    checkpoint, _, skipped = checkpoints.read(path.parent, prefer="newest")
    assert (checkpoint.t, bool(skipped)) in {(9, False), (3, True)}
    checkpoints.save(folder, _checkpoint(t=10), keep=2)
    assert sorted(checkpoints.steps(folder)) == [3, 9, 10] if skipped else [9, 10]
    if skipped:
        checkpoint_file.load(folder / "step-000000009.safetensors")


def read_signed_metadata(path):
    """Metadata behind a right digest: what a program may write that does not know them well."""
    text = path.read_bytes().decode(errors="replace")
    tensors = {"v": V}
    metadata = {"checkpoint": text, "sha256": checkpoint_file.digest_of(text, tensors)}
    path.write_bytes(to_safetensors(tensors, metadata=metadata))
    read_checkpoint(path)


METADATA = json.dumps(
    {"format": 1, "t": 7, "counters": {"a": 1.5}, "config": {"seed": 1}, "identity": {"game": "Pong"}}
).encode()


def _recording(*, mu, mean_of):
    """Two global steps of two deltas each, and the last word."""
    v, step = V.copy(), GlobalStep(0.25, mu, DIM, mean_of=mean_of)
    with tempfile.TemporaryDirectory(prefix="hsa2c-fuzz-seed-") as folder:
        path = Path(folder) / "recording-1.bin"
        writer = Writer(path, 1e6)
        about = {"dim": DIM, "M": 2, "rho": 0.25, "mu": mu, "mean_of": mean_of, "max_delay": 20}
        writer.write(Frame(kind=Kind.ABOUT, payload=json.dumps({**about, "app": "x", "session": 1}).encode()))
        writer.write(Frame(kind=Kind.V, payload=v.tobytes()))
        writer.write(Frame(kind=Kind.Z, payload=step.z.tobytes()))
        writer.write(Frame(kind=Kind.NOTE, payload=b'{"ready": {}}'))
        for t in (0, 1):
            w = np.zeros(DIM, np.float32)
            for node in (0, 1):
                delta = np.array([node + 1, t - 1, 0.5], np.float32)
                w += delta
                writer.write(Frame(kind=Kind.ANSWER, node=node, t=t, since=t - 1, number=1.0))
                writer.write(Frame(kind=Kind.DELTA, node=node, t=t, since=t, count=2, payload=delta.tobytes()))
            step(v, w, 2)
            sums = recordings.pack_sums(recordings.checksum(v), recordings.checksum(step.z))
            writer.write(Frame(kind=Kind.STEP, t=t + 1, count=2, since=2, payload=sums))
        writer.write(Frame(kind=Kind.REFUSED, node=1, count=2, payload=b"not finite"))
        writer.write(Frame(kind=Kind.DRAIN, t=2, since=2))
        writer.write(Frame(kind=Kind.END, t=2, payload=b"1 min"), last=True)
        writer.close()
        return path.read_bytes()


def read_recording(path):
    """A recording, repeated as the command does."""
    with contextlib.redirect_stdout(io.StringIO()):
        replay(path)


def read_signed_recording(path):
    """A recording whose checksums fit, whatever it says."""
    path.write_bytes(_signed(path.read_bytes()))
    read_recording(path)


def _signed(content):
    begin = len(recordings.MAGIC) + 4
    signed, at, head_bytes = [content[:begin]], begin, recordings.HEAD.size
    while at + recordings.HEAD_BYTES <= len(content):
        head = list(recordings.HEAD.unpack(content[at : at + head_bytes]))
        payload = content[at + recordings.HEAD_BYTES :][: head[-2]]
        head[-2:] = len(payload), zlib.crc32(payload)
        packed = recordings.HEAD.pack(*head)
        signed += [packed, recordings.CHECK.pack(zlib.crc32(packed)), payload]
        at += recordings.HEAD_BYTES + len(payload)
    return b"".join(signed)


def read_page(path):
    """A run whose rows, events and nodes are all in one file: its page, but for the pictures, which take long."""
    (path.parent / NODES).write_bytes(path.read_bytes())
    history, events = read_history(path), read_rows(path)
    read_curve(path, "score/mean_100")
    history = [row for row in history if number(row.get("elapsed_s")) is not None]
    if not history:
        raise ConfigError("no rows yet, nothing to report")
    pages.facts(path.parent, history, events, APPLICATION.pictures.subject)
    pages.sections_of(history, APPLICATION.pictures.sections)
    pages.story(events)
    slowest_text(read_totals(path.parent))


def _lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROWS = _lines(
    {"time": 1.5, "session": 1, "step": 10, "elapsed_s": 5.0, "score/mean_100": -20.5, "global_steps": 3},
    {"time": 1.6, "session": 1, "kind": "node_ready", "message": "node 0 is ready", "node": 0, "host": "a"},
    {"time": 2.5, "session": 1, "step": 20, "elapsed_s": 9.0, "score/mean_100": None, "progress": 0.5},
    {"time": 2.6, "session": 2, "step": 20, "nodes": [{"node": 0, "exchanges": 3, "tau": {"0": 2}, "seconds": {}}]},
    {"time": 3.5, "session": 2, "kind": "stop", "message": "stopped", "checkpoint": "x"},
)


def read_configuration(path):
    """A configuration file of both applications; what is built comes back from what it is written as."""
    values = read_yaml(path)
    refused = None
    for kind in (AtariConfig, LDAConfig):
        try:
            config = build(kind, values)
        except ConfigError as error:
            refused = error
            continue
        assert build(kind, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
        path.write_text(to_yaml(config), encoding="utf-8")
        assert build(kind, read_yaml(path)) == config
        return
    assert refused is not None
    raise refused


def read_assignments(path):
    """Values of --set, a line each, as the command line has them."""
    values = {}
    for text in path.read_bytes().decode(errors="surrogateescape").split("\n"):
        values = merge(values, nested(*parse_assignment(text)))
    build(AtariConfig, values)


CONFIGURATION = """
game: Breakout
seed: 3
cluster: {nodes: 2, processes: null}
dpsgd:
  local_updates: auto
  momentum: 1e-1
optimiser: {learning_rate: 5.0e-4, name: adam}
stop:
  minutes: 2.5
output: {run_dir: ~/runs, name: "1e5"}
"""

READERS = {
    "checkpoint": Reader(".safetensors", [_files(), _files(optimiser_states=(), momentum=0 * V)], read_checkpoint),
    "checkpoint-beside": Reader(".safetensors", [_files(t=9)], read_beside),
    "checkpoint-metadata": Reader(".json", [METADATA], read_signed_metadata),
    "recording": Reader(".bin", [_recording(mu=0.5, mean_of=None), _recording(mu=0.0, mean_of=2)], read_recording),
    "recording-signed": Reader(
        ".bin", [_recording(mu=0.5, mean_of=2), _recording(mu=0.0, mean_of=None)], read_signed_recording
    ),
    "page": Reader(".jsonl", [ROWS], read_page),
    "hosts": Reader(".txt", [b"# mine\na slots=2 p=4\nb\n10.0.0.3 slots=0\n", b"node-1.x\nnode-2.x p=1\n"], hosts.read),
    "configuration": Reader(
        ".yaml", [CONFIGURATION.encode(), b"corpus: {source: x}\nmodel: {topics: 5}\n"], read_configuration
    ),
    "assignments": Reader(
        ".txt", [b"seed=3\ndpsgd.momentum=0.5\nagent={t_max: 5}", b"game=Pong\noutput.name=x"], read_assignments
    ),
}
