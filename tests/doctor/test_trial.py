"""How fast updates come, also in bursts; the processes themselves are in `tests/commands/test_doctor.py`."""

import pytest

from hsa2c.doctor.trial import slope


def test_slope_by_hand():
    """Mean of t is 1, of x 5/3: (-1 * -5/3 + 0 + 1 * 7/3) / 2 = 2."""
    assert slope([(0.0, 0), (1.0, 1), (2.0, 4)]) == pytest.approx(2.0)


@pytest.mark.parametrize("begins_s", [0.0, 0.2, 0.5, 0.9])
def test_bursts_that_begin_whenever(begins_s):
    """32 updates in the last 0.3 s of each second, looked at for 6 s from any moment on."""

    def updates(t):
        whole, rest = divmod(t, 1.0)
        return int(32 * whole + 32 * max(0.0, rest - 0.7) / 0.3)

    seen = [(begins_s + look / 20, updates(begins_s + look / 20)) for look in range(121)]
    assert slope(seen) == pytest.approx(32, rel=0.05)
