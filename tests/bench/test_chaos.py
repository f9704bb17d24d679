"""How the chaos benchmark compares scores; the faults themselves are `tests/test_faults.py`'s matter."""

import json

import pytest

from bench.chaos import Run, compared


@pytest.fixture
def run(tmp_path):
    def run(name, scores):
        """A run whose mean score is given after each 100 agent steps."""
        directory = tmp_path / name
        directory.mkdir()
        rows = [
            {"step": 100 * (k + 1), "session": 1, "elapsed_s": float(k), "score/mean_100": score}
            for k, score in enumerate(scores)
        ]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Run(directory, 0, [])

    return run


def test_scores_are_compared_where_the_shortest_run_ended(run):
    quiet = [run("a", [None, 10.0, 99.0]), run("b", [None, 14.0, 99.0])]
    disturbed = [run("c", [None, 9.0]), run("d", [None, 13.0, 0.0])]
    found = compared(quiet, disturbed)
    assert (found["agent_steps"], found["quiet"], found["faults"]) == (200, [10.0, 14.0], [9.0, 13.0])
    assert found["difference"] == -1.0
    assert found["standard_error"] == pytest.approx(8.0**0.5)  # variances of 8 and 8, two runs each
    assert not found["worse_beyond_noise"]


def test_what_is_worse_is_called_so(run):
    found = compared([run("a", [10.0]), run("b", [11.0])], [run("c", [1.0]), run("d", [2.0])])
    assert found["worse_beyond_noise"]


def test_one_run_of_a_kind_says_nothing_of_noise(run):
    found = compared([run("a", [10.0])], [run("c", [1.0])])
    assert "worse_beyond_noise" not in found
