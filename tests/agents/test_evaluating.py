"""What an agent says of its evaluation beside training."""

import numpy as np
import pytest

from hsa2c.agents.application import APPLICATION as ATARI
from hsa2c.agents.gym.application import APPLICATION as GYM

AGENTS = pytest.mark.parametrize("app", [ATARI, GYM], ids=["Atari", "any environment"])
KEY = "evaluate/score_mean"


@AGENTS
def test_there_is_none_unless_somebody_asks(app):
    config = app.build_config({})
    assert app.evaluation(config) is None
    assert KEY not in [field.key for field in app.shown(config)]
    assert KEY not in app.drawn(config)


@AGENTS
def test_it_is_shown_after_the_best_of_training_and_drawn(app):
    config = app.build_config({"evaluation": {"every_s": 5.0, "limit_s": 7.0}})
    plan = app.evaluation(config)
    assert (plan.every_s, plan.limit_s, plan.best) == (5.0, 7.0, "score_mean")
    keys = [field.key for field in app.shown(config)]
    assert keys[keys.index(KEY) - 1] == "score/best_mean_100"
    assert app.drawn(config)[-1] == KEY


def test_episodes_of_any_environment_are_whole_and_always_the_same():
    config = GYM.build_config({"evaluation": {"every_s": 5.0, "episodes": 3}})
    plan, v = GYM.evaluation(config), GYM.initial(config)
    values = plan.evaluate(v)
    assert values == plan.evaluate(v)
    assert values["episodes"] == 3
    assert values["score_min"] <= values["score_mean"] == values["length_mean_steps"] <= values["score_max"]
    played = GYM.evaluate(config, v, games=3, seed=config.evaluation.seed)
    assert values["score_mean"] == played["mean"]


def test_games_are_played_in_one_thread_as_they_are_trained_in(monkeypatch):
    asked = {}

    def play(trained, **how):
        asked.update(how)
        return {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0, "agent_steps": 40}

    monkeypatch.setattr("hsa2c.agents.playing.play", play)
    evaluation, env = {"every_s": 5.0, "episodes": 4, "greedy": True}, {"sticky_actions": 0.25}
    plan = ATARI.evaluation(ATARI.build_config({"evaluation": evaluation, "env": env}))
    assert plan.evaluate(np.zeros(3, np.float32))["length_mean_steps"] == 10
    own = {"games": 4, "greedy": True, "sticky": 0.25, "seed": 10_000, "beside_training": True}
    assert asked == own
