"""Text for a terminal: times, and words from elsewhere that must not move its cursor."""

from __future__ import annotations

import math
import re
import time

from hsa2c.observe.shown import MISSING

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clock_text(seconds: float | None) -> str:
    """``3:05`` or ``1:03:05``."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def local_time(unix_s: float) -> str:
    """``12:34:56``, or dashes for a time that is none."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(unix_s))
    except (ValueError, OverflowError, OSError):
        return "--:--:--"


def clean(text: str) -> str:
    """Text from elsewhere without what would move a terminal's cursor or change its colours."""
    return _CONTROL.sub("", text.expandtabs())


def one_line(text: object) -> str:
    """`clean`, its lines joined."""
    return " ".join(clean(str(text)).split())
