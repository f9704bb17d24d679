"""`import hsa2c`: what is offered, and that it is light."""

import importlib
import inspect
import json
import subprocess
import sys
from importlib import metadata

import pytest

import hsa2c
from tests.processes import REPOSITORY, environment

HEAVY = ("torch", "numpy", "pydantic", "mpi4py", "matplotlib", "yaml", "rich", "IPython", "argparse")
LOOK = f"""
import json, sys, time
began_at = time.process_time()
import hsa2c
took_s = time.process_time() - began_at
print(json.dumps([took_s, sorted(set({HEAVY}) & set(sys.modules)), hsa2c.__version__]))
"""
HANDS = ("train", "minimise", "resume", "evaluate", "load", "Run", "Callback", "Problem", "Application", "Tracker")
ERRORS = ("HSA2CError", "ConfigError", "CheckpointError", "FinishedError")


@pytest.fixture(scope="module")
def looked():
    done = [
        subprocess.run(
            [sys.executable, "-c", LOOK], cwd=REPOSITORY, env=environment(), capture_output=True, timeout=60, check=True
        )
        for _ in range(3)
    ]
    return [json.loads(one.stdout) for one in done]


def test_the_import_is_light(looked):
    assert looked[0][1] == []
    assert min(took_s for took_s, _, _ in looked) < 0.05


def test_the_version_is_the_packages(looked):
    assert looked[0][2] == hsa2c.__version__ == metadata.version("hsa2c")


def test_all_is_what_is_documented_and_there():
    assert sorted(hsa2c.__all__) == sorted((*HANDS, *ERRORS))
    assert set(hsa2c.__all__) | {"__version__"} <= set(dir(hsa2c))
    for name in hsa2c.__all__:
        found = getattr(hsa2c, name)
        assert found is getattr(importlib.import_module(found.__module__), name)
        assert inspect.getdoc(found)


def test_the_reference_has_all():
    page = (REPOSITORY / "docs" / "reference" / "api.md").read_text()
    assert [name for name in hsa2c.__all__ if name not in page] == []


def test_what_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        _ = hsa2c.nosuch


def test_the_errors_are_one_tree():
    for name in ERRORS:
        assert issubclass(getattr(hsa2c, name), hsa2c.HSA2CError)
