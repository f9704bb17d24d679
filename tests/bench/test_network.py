"""The network benchmark on emulated hosts, and what it makes of its measurements."""

import contextlib
import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from bench import network
from bench.testbed.emulated_hosts import why_not
from bench.testbed.sleeping import Counter
from tests.processes import command_line, wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=f"emulated hosts: {why_not()}")
def test_measures_each_setting_once_and_draws(tmp_path, capfd):
    arguments = ["--part", "fig5", "--links", "usual", "--nodes", "2", "--B", "4", "--exchange", "overlap", "--json"]
    arguments += ["--update-s", "0.03", "--seconds", "6", "--warm-up", "3", "--run-dir", str(tmp_path)]
    assert network.main(arguments) == 0
    (found,) = json.loads(capfd.readouterr().out)["results"]
    # 2 nodes, 48 data points in 30 ms or somewhat more, and at most 46 exchanges/s on 1 Gbit/s.
    assert 1000 < found["data_points_per_s"] <= 1.1 * 2 * 48 / 0.03
    assert found["exchanges_per_s"] < 50
    assert found["exchange_s"] > 0.004  # there and back, 1 ms between host and switch
    assert (tmp_path / "fig5.png").stat().st_size > 10_000
    assert network.main(arguments) == 0  # nothing is measured again
    assert json.loads(capfd.readouterr().out)["results"] == [found]


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=f"emulated hosts: {why_not()}")
def test_nothing_goes_on_when_it_is_terminated(tmp_path):
    arguments = ["--links", "usual", "--nodes", "2", "--B", "4", "--exchange", "overlap", "--update-s", "0.03"]
    command = [sys.executable, "-m", "bench.network", *arguments, "--seconds", "200", "--run-dir", str(tmp_path)]
    bench = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(tmp_path.glob("*/metrics.jsonl")), "a run", limit_s=60)
        assert len(_naming(tmp_path)) > 3  # this one, the launcher, the master, two nodes
        bench.terminate()
        assert bench.wait(60) == 143
        assert _naming(tmp_path) == []
    finally:
        for process in _naming(tmp_path):
            process.kill()
        bench.wait()


def _naming(folder):
    """All processes on whose command lines a folder is."""
    return [process for process in psutil.process_iter() if str(folder) in " ".join(command_line(process))]


def test_says_why_it_measures_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(network, "why_not", lambda: "needs root")
    assert network.main(["--run-dir", str(tmp_path / "runs")]) == 0
    assert capfd.readouterr().err == "bench.network: skipped: emulated hosts: needs root\n"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--part", "fig5", "--B", "4", "auto"], "--B auto is for --part turns, not fig5"),
        (["--part", "turns", "--B", "some"], "argument --B: some, must be a whole number or auto"),
    ],
)
def test_refuses_a_b_that_it_cannot_measure(arguments, said, capfd) -> None:
    with pytest.raises(SystemExit, match="2"):
        network.main(arguments)
    assert capfd.readouterr().err.endswith(f"error: {said}\n")


def test_what_was_measured_with_other_settings_is_measured_again(tmp_path, monkeypatch) -> None:
    measured = []

    def sleeping(options, cluster, key):
        measured.append(options.set)
        return {"data_points_per_s": 1.0}

    monkeypatch.setattr(network, "sleeping", sleeping)
    monkeypatch.setattr(network, "why_not", lambda: None)
    monkeypatch.setattr(network.Link, "hosts", lambda link, number: contextlib.nullcontext())
    arguments = ["--links", "usual", "--nodes", "2", "--B", "4", "--exchange", "paper", "--update-s", "0.03"]
    arguments += ["--run-dir", str(tmp_path)]
    rounded = ["--set", "dpsgd.delta_dtype=bfloat16"]
    for more in ([], rounded, [], rounded):
        assert network.main([*arguments, *more]) == 0
    assert measured == [[], ["dpsgd.delta_dtype=bfloat16"]]


def test_speeds_are_between_two_marks() -> None:
    """Two nodes, of which the second is first heard in the second row; rows come when they come."""
    history = [
        {"elapsed_s": 3.0, "made/0": 4, "made_at_s/0": 10.5, "stepped": 2, "stepped_at_s": 10.0},
        {
            "elapsed_s": 4.0,
            "made/0": 8,
            "made_at_s/0": 11.5,
            "made/1": 4,
            "made_at_s/1": 11.0,
            "stepped": 3,
            "stepped_at_s": 11.2,
        },
        {
            "elapsed_s": 5.0,
            "made/0": 16,
            "made_at_s/0": 12.5,
            "made/1": 20,
            "made_at_s/1": 13.0,
            "stepped": 8,
            "stepped_at_s": 12.0,
        },
    ]
    assert network.exact_speeds(history, 2) == pytest.approx((12 / 2.0 + 16 / 2.0, 6 / 2.0))
    with pytest.raises(SystemExit, match="marked once"):
        network.exact_speeds(history[-1:], 2)


def test_counter_marks_whole_rounds() -> None:
    counter = Counter({}, B=4)
    for made, at_s in ((4, 1.0), (6, 1.5), (8, 2.0), (9, 2.3)):
        counter.add(1, {"data_points": 48, "made": made, "made_at_s": at_s})
    before_s = time.monotonic()
    counter.measure(np.zeros(1, np.float32), due=False)
    row = counter.row(1.0)
    assert (row["made/1"], row["made_at_s/1"], row["stepped"], row["data_points"]) == (8, 2.0, 1, 4 * 48)
    assert before_s <= row["stepped_at_s"] <= time.monotonic()
