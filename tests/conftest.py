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
    """Two for the quick lane, three for the slow one, which waits for processes; none for tests that somebody names."""
    if config.args != config.getini("testpaths"):
        return 0
    return 3 if config.option.markexpr == "slow" else 2


@pytest.fixture(autouse=True)
def one_thread():
    """Commands set the number of torch's threads for their own process."""
    yield
    torch.set_num_threads(1)
