"""The network benchmark on emulated hosts, and what it makes of its measurements."""

import json

import pytest

from bench import network
from bench.emulated_hosts import why_not

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


def test_says_why_it_measures_nothing(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(network, "why_not", lambda: "needs root")
    assert network.main(["--run-dir", str(tmp_path / "runs")]) == 0
    assert capfd.readouterr().err == "bench.network: skipped: emulated hosts: needs root\n"
    assert not (tmp_path / "runs").exists()
