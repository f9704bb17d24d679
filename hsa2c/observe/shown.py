"""Which values of a run its user is shown, and how they are written: an application says it, without any console."""

from __future__ import annotations

from dataclasses import dataclass

from hsa2c.observe.jsonlines import Row
from hsa2c.observe.runlog import number

MISSING = "-"


@dataclass(frozen=True)
class Field:
    """A value of the rows, as shown: its label, its key in the row, how it is written."""

    label: str
    key: str
    format: str = "{:,.0f}"

    def text(self, row: Row) -> str:
        """The value in words; "-" if the row has no such number."""
        value = number(row.get(self.key))
        if value is None:
            return MISSING
        try:
            return self.format.format(value)
        except ValueError:  # a format for integers met a float
            return str(value)
