"""Scripts and sessions of a user's, as other processes run them."""

import contextlib
import subprocess
import sys

from tests.processes import PATIENCE_S, REPOSITORY, environment, usual_signals

PROBLEM = """
import hsa2c, os, sys, time, torch
from torch import nn

class Point(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(3))

def loss(model):
    return ((model.x - 1.0) ** 2).sum()

def distance(model):
    return {"distance": ((model.x - 1.0) ** 2).sum().item()}

settings = {"optimiser.name": "sgd", "output.log_every_s": 0.3, "output.checkpoint_every_s": 0.3}
how = dict(p=1, lr=0.1, settings=settings, name="run", progress=False, force=True)
model = Point()
"""
CALL = """
if __name__ == "__main__":
    run = hsa2c.minimise(model, loss, evaluate=distance, run_dir=sys.argv[1], **(how | {more}))
    print(run.reason, model.x.round(decimals=2).tolist())
"""
DONE = "[1.0, 1.0, 1.0]"


def write(folder, more="{'updates': 100}", *, before="", problem=PROBLEM, call=CALL):
    """A script that minimises; its first argument is the folder of its run."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "own_script.py"
    script.write_text(problem + before + call.format(more=more))
    return script


def start(*arguments, cwd=REPOSITORY, source=None, **variables):
    """Python with these arguments; `source` is a file for its input."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment(PYTHONPATH=str(REPOSITORY), **variables),
        stdin=source or subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=usual_signals,
    )


@contextlib.contextmanager
def running(*arguments, **how):
    """The same, and its end whatever happens."""
    process = start(*arguments, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def run(*arguments, code=0, **how):
    """What it says on stdout and on stderr, once it has ended with this exit code."""
    process = start(*arguments, **how)
    try:
        said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == code, said
    return said
