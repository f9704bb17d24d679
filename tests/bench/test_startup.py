"""The benchmark against a real run that is small."""

import json

import pytest

from bench.startup import PHASES, main, summary

pytestmark = pytest.mark.timeout(300)


def test_medians_but_the_least_processor_time():
    runs = [dict.fromkeys(PHASES, value) for value in (5.0, 1.0, 2.0)]
    assert summary(runs) == dict.fromkeys(PHASES, 2.0) | {"processor_s": 1.0}


@pytest.mark.slow
def test_measures_from_the_command_to_the_end(capfd):
    small = ["--train=--p=1", "--train=--set=agent.num_envs=2", "--train=--set=agent.precision=float32"]
    assert main(["--nodes", "1", "2", "--rounds", "1", "--json", *small]) == 0
    result = json.loads(capfd.readouterr().out)
    assert set(result["nodes"]) == {"1", "2"}
    for seconds in result["nodes"].values():
        assert 0 < seconds["command_s"] < seconds["ready_s"] < seconds["update_s"] <= seconds["exchange_s"] < 200
        assert seconds["processor_s"] > 1
        assert seconds["stop_s"] > 0
