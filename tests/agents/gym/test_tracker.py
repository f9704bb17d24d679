"""Limits of an agent in any environment: episodes, and a score of training."""

from hsa2c.agents.gym.application import APPLICATION


def tracker(counters=None, **stop):
    return APPLICATION.tracker(APPLICATION.build_config({"stop": stop}), counters or {})


def play(tracker, episodes, score):
    report = {"agent_steps": 10 * episodes, "updates": 1, "rollouts": 1, "update_sums": {}, "rollout_sums": {}}
    report |= {"seconds": {}, "games": [(score, 10)] * episodes, "env_faults": 0, "env_fault": ""}
    tracker.add(0, report)


def test_so_many_episodes_are_the_end():
    episodes = tracker(episodes=120)
    play(episodes, 119, 1.0)
    assert episodes.reached() is None
    play(episodes, 1, 1.0)
    assert episodes.reached() == "120 episodes (limit 120)"


def test_episodes_of_earlier_sessions_count():
    before = tracker(episodes=120)
    play(before, 100, 1.0)
    resumed = tracker(before.counters(), episodes=120)
    play(resumed, 20, 1.0)
    assert resumed.reached() == "120 episodes (limit 120)"


def test_a_mean_score_of_100_training_episodes_is_the_end():
    score = tracker(score=5.0)
    play(score, 99, 9.0)
    assert score.reached() is None, "too few"
    play(score, 1, 9.0)
    assert score.reached() == "mean score 9.00 of the last 100 episodes (goal 5)"
