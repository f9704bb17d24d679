import json

import numpy as np
import pytest

from hsa2c.agents.games import GameTracker


def report(steps=0, *, games=(), updates=1, **sums):
    """What an actor-learner tells, with made-up sums."""
    return {
        "agent_steps": steps,
        "updates": updates,
        "games": [list(game) for game in games],
        "update_sums": sums,
        "rollouts": 1,
        "rollout_sums": {"value/mean": 0.5},
        "seconds": {"emulator": 1.0, "acting": 1.0, "learning": 2.0},
    }


def tracker(nodes=1, steps=None, score=None, counters=None):
    return GameTracker(nodes, 6, limit_agent_steps=steps, limit_score=score, counters=counters or {})


def play(games, scores):
    for score in scores:
        games.add(0, report(games=[(score, 400)]))


def test_nothing_is_known_at_first():
    games = tracker(nodes=2)
    assert (games.work, games.quality, games.reached(), games.progress()) == (0, None, None, 0.0)
    row = games.row(5.0)
    assert {key for key, value in row.items() if value is None} == {
        "score/mean_100",
        "score/best_mean_100",
        "score/last",
        "length/mean_frames",
    }
    assert all(value == 0 for value in row.values() if value is not None)


def test_spare_that_works_counts():
    games = tracker(nodes=2)
    games.add(0, report(100))
    games.add(2, report(60))
    row = games.row(4.0)
    assert (row["agent_steps"], row["speed/agent_steps_per_s"]) == (160, 40.0)
    assert [row[f"speed/node_0{node}"] for node in range(3)] == [25.0, 0.0, 15.0]


def test_speed_is_even_where_processes_play_for_long_and_then_learn_for_long():
    """It is of the last 20 s, and of nothing before: four rows of 5 s, or one that is longer."""
    games = tracker(nodes=1)
    speeds = []
    for seconds, played in ((5, 0), (5, 4000), (5, 0), (5, 4000), (5, 0), (5, 4000), (30, 300), (5, 75)):
        games.add(0, report(played))
        speeds.append(games.row(seconds)["speed/agent_steps_per_s"])
    assert speeds == pytest.approx([0, 400, 800 / 3, 400, 400, 400, 10, 375 / 35])
    assert games.work == 12_375, "agent steps are counted when they are played"


def test_row_by_hand():
    games = tracker(nodes=2)
    games.add(0, report(100, updates=3, games=[(-21.0, 3000)], **{"loss/value": 3.0}))
    games.add(1, report(60, updates=1, games=[(-19.0, 5000)], **{"loss/value": 2.0}))
    row = games.row(4.0)
    assert row == {
        "agent_steps": 160,
        "updates": 4,
        "games": 2,
        "score/mean_100": -20.0,
        "score/best_mean_100": None,
        "score/last": -20.0,
        "score/stalled": 0,
        "length/mean_frames": 4000.0,
        "speed/agent_steps_per_s": 40.0,
        "speed/updates_per_s": 1.0,
        "speed/node_00": 25.0,
        "speed/node_01": 15.0,
        "loss/value": 1.25,
        "value/mean": 0.5,
        "time/emulator_share": 0.25,
        "time/acting_share": 0.25,
        "time/learning_share": 0.5,
    }


def test_row_is_of_the_time_since_the_last_one():
    games = tracker()
    games.add(0, report(100, games=[(3.0, 40)], **{"loss/value": 8.0}))
    games.row(1.0)
    games.add(0, report(50, **{"loss/value": 2.0}))
    row = games.row(2.0)
    assert (row["agent_steps"], row["speed/updates_per_s"], row["loss/value"]) == (150, 0.5, 2.0)
    assert (row["score/last"], row["length/mean_frames"], row["score/mean_100"]) == (None, None, 3.0)


def test_seconds_of_the_process_around_the_agent_count_too():
    games = tracker()
    games.add(0, report() | {"pool_s": {"optimiser": 1.0, "waiting": 3.0}})
    row = games.row(1.0)
    assert (row["time/learning_share"], row["time/optimiser_share"], row["time/waiting_share"]) == (0.25, 0.125, 0.375)


def test_no_division_by_nothing():
    games = tracker()
    games.add(0, report(5, updates=0) | {"rollouts": 0, "rollout_sums": {}, "seconds": {"emulator": 0.0}})
    row = games.row(1.0)
    assert (row["updates"], row["time/emulator_share"]) == (0, None)


def test_mean_is_of_the_last_100_games():
    games = tracker()
    scores = np.random.default_rng(0).integers(-21, 22, 250).astype(float)
    best = None
    for k, score in enumerate(scores, 1):
        play(games, [score])
        window = scores[max(0, k - 100) : k]
        row = games.row(1.0)
        assert row["games"] == k
        assert row["score/mean_100"] == pytest.approx(window.mean())
        if k < 100:
            assert games.quality is None
        else:
            assert games.quality == pytest.approx(window.mean())
            best = window.mean() if best is None else max(best, window.mean())
        assert row["score/best_mean_100"] == (None if best is None else pytest.approx(best))
    assert best > scores[-100:].mean(), "the best is in the past: else a weak test"


def test_best_is_looked_for_after_every_game_of_a_report():
    games = tracker()
    games.add(0, report(games=[(1.0, 4)] * 100 + [(0.0, 4)] * 50))
    assert games.quality == pytest.approx(0.5)
    assert games.row(1.0)["score/best_mean_100"] == 1.0


def test_counters_make_a_tracker_that_goes_on():
    games = tracker(steps=10_000)
    for k in range(130):
        games.add(0, report(7, updates=2, games=[(float(k % 17), 400)]))
    counters = json.loads(json.dumps(games.counters()))
    resumed = tracker(steps=10_000, counters=counters)
    assert resumed.counters() == games.counters()
    assert (resumed.work, resumed.quality, resumed.progress()) == (games.work, games.quality, games.progress())
    games.row(1.0)
    for both in (games, resumed):
        play(both, [100.0])
    assert resumed.row(20.0) == games.row(20.0)
    assert resumed.work == 7 * 130
    assert len(counters["last_scores"]) == 100


def test_counters_of_few_games():
    games = tracker()
    play(games, [1.0, 2.0])
    resumed = tracker(counters=games.counters())
    play(resumed, [6.0])
    row = resumed.row(1.0)
    assert (row["games"], row["score/mean_100"], row["score/best_mean_100"]) == (3, 3.0, None)


def test_limit_on_agent_steps():
    games = tracker(steps=1000)
    games.add(0, report(999))
    assert games.reached() is None
    assert games.progress() == 0.999
    games.add(0, report(2))
    assert games.reached() == "1,001 agent steps (limit 1,000)"
    assert games.progress() == 1.0


def test_limit_on_the_score():
    games = tracker(score=18.0)
    play(games, [18.0] * 99)
    assert games.reached() is None, "too few games, however good"
    play(games, [18.0])
    assert games.reached() == "mean score 18.00 of the last 100 games (goal 18)"
    assert games.progress() == 0.0, "a score is no share of work"
    play(games, [17.0])
    assert games.reached() is None


def test_score_of_zero_is_a_goal_too():
    games = tracker(score=0.0)
    play(games, [-1.0] * 100)
    assert games.reached() is None
    play(games, [1.0] * 50)
    assert games.reached() is not None


def test_no_limits_are_never_reached():
    games = tracker()
    play(games, [1e9] * 100)
    games.add(0, report(10**12))
    assert games.reached() is None
    assert games.progress() == 0.0


def test_stall_is_told_until_the_score_is_better():
    games = tracker()
    play(games, [-20.0] * 100)
    for steps, stalled in ((400_000, 0), (200_000, 1), (1, 1)):
        games.add(0, report(steps, **{"policy/entropy": 1.79}))
        assert games.row(5.0)["score/stalled"] == stalled
        assert (games.warning() is not None) == bool(stalled)
    assert games.warning().startswith(
        "no better mean score for 600,001 agent steps, and the policy plays nearly at random"
    )
    resumed = tracker(counters=json.loads(json.dumps(games.counters())))
    for one in (games, resumed):
        one.add(0, report(1, **{"policy/entropy": 1.79}))
        assert one.row(5.0)["score/stalled"] == 1
        one.add(0, report(1, games=[(-10.0, 400)], **{"policy/entropy": 1.79}))
        assert one.row(5.0)["score/stalled"] == 0
        assert one.warning() is None
