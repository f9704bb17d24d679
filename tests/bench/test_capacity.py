"""The benchmark with real ranks, few and for a second."""

import json

import pytest

from bench import capacity
from hsa2c.transport.codec import Encoding

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
def test_measures(capfd):
    """Two nodes and M = 2: a node has mostly one step to catch up with, or nothing at all."""
    arguments = ["--nodes", "2", "--M", "2", "--dim", "50000", "--seconds", "1", "--delta-dtype", "bfloat16", "--json"]
    assert capacity.main(arguments) == 0
    (run,) = json.loads(capfd.readouterr().out)["runs"]
    encoded = Encoding.BFLOAT16.size(50_000)
    assert run["exchanges_per_s"] > 10
    assert run["global_steps_per_s"] == pytest.approx(run["exchanges_per_s"] / 2, rel=0.1)
    assert encoded + 64 < run["delta_bytes"] < encoded + 500
    assert 64 < run["v_bytes"] < 1.5 * encoded  # 2 would be the whole v each time
    assert 0 < run["master_busy"] < 1.05
    assert sum(run["split_ms"].values()) == pytest.approx(run["master_cpu_ms"], rel=0.05)
    assert {"receive", "decode", "finite", "sum", "step", "serve", "send"} <= run["split_ms"].keys()
    assert sum(run["node_split_ms"].values()) == pytest.approx(run["node_cpu_ms"], rel=0.05)
    assert {"round", "write", "send and receive", "add", "probe"} <= run["node_split_ms"].keys()
    assert 5 < run["master_peak_pss_mib"] < 300
    assert "Open MPI" in run["mpi"]


def test_figures_by_hand():
    found = {
        "exchanges": 200,
        "global_steps": 100,
        "seconds": 10.0,
        "cpu_s": 1.0,
        "nodes_split_s": {"cpu": 3.0, "round": 0.4},
        "delta_bytes": 4000,
        "v_bytes": 6000,
        "split_s": {"sum": 0.2, "receive": 0.6},
        "peak_mib": 40.0,
        "mpi": "Open MPI",
    }
    run = capacity.summarise(found)
    assert (run["exchanges_per_s"], run["global_steps_per_s"], run["bytes_per_s"]) == (20, 10, 1000)
    assert (run["master_cpu_ms"], run["node_cpu_ms"], run["master_busy"]) == (5.0, 15.0, 0.1)
    assert run["split_ms"] == pytest.approx({"receive": 3.0, "sum": 1.0, "rest": 1.0})
    assert run["node_split_ms"] == pytest.approx({"round": 2.0, "rest": 13.0})
    assert (run["delta_bytes"], run["v_bytes"]) == (20, 30)
