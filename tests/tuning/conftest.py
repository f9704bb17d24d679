import contextlib

import pytest

from tests.tuning.studies import study as begun


@pytest.fixture
def study(tmp_path):
    """Opens a study, as often as asked; closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(contextlib.closing(begun(tmp_path, **how)))
