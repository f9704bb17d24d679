"""Several that look on at one master."""

import inspect

from hsa2c.dpsgd.protocols import Monitor
from hsa2c.recording.recorder import Monitors

QUESTIONS = {"stopping", "rate_scale"}
EVENTS = {name for name, _ in inspect.getmembers(Monitor, inspect.isfunction)} - QUESTIONS


class Noting(Monitor):
    def __init__(self, name, heard, answer):
        def noting(what):
            return lambda *values, **named: heard.append((name, what, values, named))

        for event in EVENTS:
            setattr(self, event, noting(event))
        self.stopping = self.rate_scale = lambda: answer


def test_all_are_told_in_order_and_the_last_is_asked():
    heard = []
    monitors = Monitors(Noting("first", heard, 1), Noting("second", heard, 2))
    assert len(EVENTS) == 9
    for event in sorted(EVENTS):
        getattr(monitors, event)(event, why=3)
    assert heard == [(name, event, (event,), {"why": 3}) for event in sorted(EVENTS) for name in ("first", "second")]
    assert (monitors.stopping(), monitors.rate_scale()) == (2, 2)
