"""One thread in each process, as in a run: the tests fork, and idle threads would spin beside those that work."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile("no deadline", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("no deadline")


def pytest_xdist_auto_num_workers(config):
    """Three on two cores, for some tests wait; none for tests that somebody names."""
    return 0 if config.args != config.getini("testpaths") else 3


def pytest_ignore_collect(collection_path, config):
    """A file without slow tests is not read for them: each worker reads all."""
    if config.option.markexpr == "slow" and collection_path.name.startswith("test_"):
        return "mark.slow" not in collection_path.read_text(encoding="utf-8") or None
    return None


@pytest.fixture(autouse=True)
def one_thread():
    """Commands set the number of torch's threads for their own process."""
    yield
    torch.set_num_threads(1)
