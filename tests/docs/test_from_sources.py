"""What the documents take from the code: settings from their declarations, help from the commands."""

import dataclasses
import sys

import pytest

from hsa2c.agents.application import AtariConfig
from hsa2c.agents.gym.settings import GymConfig
from hsa2c.examples.lda.settings import LDAConfig
from tests.processes import REPOSITORY


@pytest.fixture(autouse=True)
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs" / "_ext"))
    yield
    for name in ("declared", "from_sources"):
        sys.modules.pop(name, None)


def parsed(source, tmp_path, monkeypatch):
    import declared

    (tmp_path / "settings.py").write_text(source)
    monkeypatch.setitem(declared.CONFIGURATIONS, "WholeConfig", "settings.py")
    return declared.sections(tmp_path, "WholeConfig")


def dotted(section, prefix=""):
    for each in dataclasses.fields(section):
        value = getattr(section, each.name)
        yield from dotted(value, f"{each.name}.") if dataclasses.is_dataclass(value) else [prefix + each.name]


@pytest.mark.parametrize("configuration", [AtariConfig, GymConfig, LDAConfig])
def test_every_setting_of_a_configuration_is_found(configuration):
    from declared import sections

    found = {
        section.name: {each.name for each in section.settings}
        for section in sections(REPOSITORY, configuration.__name__)
    }
    whole = configuration()
    named = {field.name: getattr(whole, field.name) for field in dataclasses.fields(configuration)}
    expected = {name: set(dotted(value)) for name, value in named.items() if dataclasses.is_dataclass(value)}
    assert found == {"": named.keys() - expected.keys(), **expected}


def test_a_section_says_default_range_and_meaning():
    from declared import sections

    dpsgd = next(each for each in sections(REPOSITORY, "AtariConfig") if each.name == "dpsgd")
    momentum = next(each for each in dpsgd.settings if each.name == "momentum")
    assert (momentum.default, momentum.kind) == ("0.0", "number, at least 0, below 1")
    assert momentum.text.startswith("Momentum of the global step. mu.")


def test_a_field_of_its_own_replaces_its_base_s():
    from declared import sections

    optimiser = next(each for each in sections(REPOSITORY, "AtariConfig") if each.name == "optimiser")
    defaults = {each.name: each.default for each in optimiser.settings}
    assert (defaults["beta1"], defaults["beta2"]) == ("0.0", "0.999")


def test_a_setting_without_a_text_is_refused(tmp_path, monkeypatch):
    with pytest.raises(LookupError, match="line 3: size"):
        parsed("class WholeConfig:\n    '''All.'''\n    size: int = 1\n", tmp_path, monkeypatch)


def test_a_line_of_a_page_is_replaced():
    from from_sources import expand

    page = expand("# Settings\n\n{{ settings LDAConfig without cluster dpsgd }}\n\n{{ no line }} of its own\n")
    assert "`corpus.source`\n: Default `'pydocs'`." in page
    assert "dpsgd.momentum" not in page
    assert "{{ no line }} of its own" in page


def test_help_is_what_the_command_prints():
    from from_sources import expand

    assert expand("{{ help rates }}").startswith("```text\nusage: hsa2c rates [-h]")
