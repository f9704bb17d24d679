"""Studies whose trials are a few lines of Python: a rate between 0 and 1, and a score that climbs to it."""

import sys
from pathlib import Path

from hsa2c.tuning.ranges import Range
from hsa2c.tuning.study import Plan, Study, write_plan

RATE = Range(field="optimiser.learning_rate", text="0..1", low=0.0, high=1.0)

#: What a trial does, by its file of settings and its run directory.
SCRIPT = """
import json, sys, time, yaml
from pathlib import Path
file, run, act = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rate = yaml.safe_load(file.read_text())["optimiser"]["learning_rate"]
run.mkdir()
def rows(n, value, key="score"):
    with (run / "metrics.jsonl").open("a") as metrics:
        for i in range(1, n + 1):
            row = {"time": i, "session": 1, "step": i, "elapsed_s": i, "progress": i / 20, key: value}
            print(json.dumps(row), file=metrics, flush=True)
if act == "good":
    rows(20, rate)
elif act == "slow":
    rows(10, 0.5)
    time.sleep(60)
elif act == "poor":
    rows(12, -1.0)
    time.sleep(60)
elif act == "silent":
    rows(20, None)
elif act == "other":
    rows(20, 1.0, key="scores")
elif act == "broken":
    (run / "journal.jsonl").write_text(json.dumps({"kind": "error", "session": 1, "message": "node 0 has failed",
                                                  "traceback": "Traceback:\\nValueError: not a number"}) + "\\n")
    sys.exit(1)
elif act == "refused":
    sys.exit("hsa2c train: agent.t_max = 0: must be greater")
"""


def command(act):
    """A command of `hsa2c.tuning.runner.Runner` that does the same in each trial, or what a list says in turn."""
    acts = iter(act) if not isinstance(act, str) else None

    def make(file, directory):
        return [sys.executable, "-c", SCRIPT, str(file), str(directory), act if acts is None else next(acts)]

    return make


def study(directory, *, trials=3, objective="score", ranges=(RATE,)):
    tried = {each.field: each for each in ranges}
    texts = {field: each.text for field, each in tried.items()}
    plan = Plan(objective=objective, trials=trials, ranges=texts, asked={"seed": 3})
    write_plan(Path(directory), plan, "tests.nowhere")
    return Study(Path(directory), plan, tried)


def complete(studied, value, *, levels=0):
    """A trial that somebody has trained to its end; `value` may depend on its settings."""
    trial = studied.begin()
    number = value(trial.params) if callable(value) else value
    for level in range(1, levels + 1):
        studied.report(trial, level, number)
    studied.end(trial, value=number)
    return trial.number
