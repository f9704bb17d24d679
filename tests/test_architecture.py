"""docs/explanation/architecture.md names functions that are there."""

import ast
import re

import pytest

from tests.processes import REPOSITORY

_STOP = re.compile(r" +(\d+)  (\S+\.py) +(\S+)(?:  |$)")
_TEXT = (REPOSITORY / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def stops():
    """File and function of each line of "The trip of a setting"."""
    section = _TEXT.partition("## The trip of a setting")[2].partition("\n## ")[0]
    return [match.groups() for line in section.splitlines() if (match := _STOP.match(line))]


def test_the_trip_of_a_setting_is_short():
    numbers = [int(number) for number, _, _ in stops()]
    assert numbers == [*range(1, 13), *range(1, 13)]


@pytest.mark.parametrize(("file", "name"), sorted({(file, name) for _, file, name in stops()}))
def test_each_stop_is_there(file, name):
    here = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    for part in name.split("."):
        defined = {each.name: each for each in here.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}
        assert part in defined
        here = defined[part]
