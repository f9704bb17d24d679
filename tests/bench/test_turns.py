"""Runs that work in turns."""

import subprocess
import sys

import pytest

from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from bench.testbed.turns import Turn, speed, take_turns, worked_s

pytestmark = pytest.mark.timeout(120)

_COUNTING = """
import sys, time
while True:
    time.sleep(0.01)
    open(sys.argv[1], "a").write(f"{time.time()}\\n")
"""


def test_a_run_has_worked_in_its_turns_only() -> None:
    turns = [Turn(10.0, 15.0), Turn(25.0, 30.0)]
    assert [worked_s(turns, at) for at in (9.0, 10.0, 12.0, 15.0, 24.0, 26.0, 40.0)] == [0, 0, 2, 5, 5, 6, 10]


def test_a_speed_leaves_out_what_lies_between_turns() -> None:
    """100 steps a second, rows each second and at once when a run goes on; what another stage did is left out."""
    turns = [Turn(10.0, 15.0), Turn(25.0, 30.0)]
    times = [9.0, *(10.5 + k for k in range(5)), *(25.5 + k for k in range(5)), 41.0]
    history = [{"time": at, "agent_steps": 7000 + 100 * worked_s(turns, at)} for at in times]
    history[0]["agent_steps"], history[-1]["agent_steps"] = 0, 1_000_000
    assert speed(history, turns, "agent_steps") == pytest.approx(100.0)


def test_two_rows_are_needed() -> None:
    with pytest.raises(SystemExit, match="1 rows in 1 turns: too few"):
        speed([{"time": 1.0, "agent_steps": 1}], [Turn(0.0, 5.0)], "agent_steps")


@pytest.mark.skipif(why_not() is not None, reason=f"emulated hosts: {why_not()}")
def test_one_works_at_a_time(tmp_path) -> None:
    """Two processes write the time every 10 ms, each on its own emulated host."""
    with EmulatedHosts(1) as first, EmulatedHosts(1) as second:
        several = [first, second]
        processes = [
            subprocess.Popen([*hosts.inside("h0"), sys.executable, "-c", _COUNTING, str(tmp_path / str(place))])
            for place, hosts in enumerate(several)
        ]
        turns = take_turns(several, rounds=3, seconds=0.5)
        assert [process.poll() for process in processes] == [None, None]
    for process in processes:
        process.wait()
    for place in range(2):
        own, other = turns[place], turns[1 - place]
        # Before the first turn of all nobody was stopped.
        begin = min(turn.start for turn in (*own, *other)) + 0.6
        times = [float(line) for line in (tmp_path / str(place)).read_text().splitlines()]
        late = [at for at in times if at > begin]
        assert len(late) > 20
        assert all(any(turn.start <= at <= turn.end for turn in own) for at in late)
    assert [turns[0][0].start < turns[1][0].start, turns[0][1].start < turns[1][1].start] == [True, False]
