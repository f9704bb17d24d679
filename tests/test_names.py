"""A user's own code by name: what is given is found, here and where only its file is."""

import sys
import types
from functools import reduce

import pytest

from hsa2c import names
from hsa2c.errors import ConfigError
from tests.api import problems

SCRIPT = """
import beside
class Own:
    class Inner: pass
def own(): return beside.VALUE
MODEL = Own()
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script that is not loaded yet, and a module beside it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "beside.py").write_text("VALUE = 5\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    yield tmp_path / "script.py"
    for name in ("__mp_main__", "beside"):
        sys.modules.pop(name, None)


@pytest.fixture
def as_main(monkeypatch):
    """A function that lets this process have such a module as its `__main__`, and gives it back."""

    def become(source="", **attributes):
        module = types.ModuleType("__main__")
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, "__main__", module)
        exec(source, vars(module))
        return module

    return become


def closure():
    return lambda: 3


@pytest.mark.parametrize("attribute", ["squares", "Point", "Point.__init__"])
def test_what_is_in_a_file_has_its_name(attribute):
    thing = reduce(getattr, attribute.split("."), problems)
    name = names.give(thing, "thing")
    assert name == f"tests.api.problems:{attribute}"
    assert names.reaches_others(name)
    assert names.find(name) is thing


@pytest.mark.parametrize("thing", [closure(), lambda: 1, closure.__call__, object()])
def test_what_is_in_no_file_is_found_in_this_process(thing):
    name = names.give(thing, "thing")
    assert not names.reaches_others(name)
    assert names.is_given(name)
    assert names.find(name) is thing


def test_things_with_one_name_are_told_apart():
    first, second = closure(), closure()
    given = [names.give(thing, "loss") for thing in (first, second, first)]
    assert given[0] == given[2] != given[1]
    assert [names.find(name) for name in given] == [first, second, first]


def test_what_hides_another_of_its_name_is_not_taken_for_it(monkeypatch):
    """A decorated function has the name of the one inside it."""
    inside = problems.squares
    monkeypatch.setattr(problems, "squares", lambda model: inside(model))
    assert not names.reaches_others(names.give(inside, "loss"))


def test_an_instance_has_the_name_of_its_global():
    name = names.give(problems.MODEL, "model")
    assert name.endswith(":MODEL")
    assert names.find(name) is problems.MODEL


def test_what_a_script_has_is_named_by_its_file(script, as_main):
    main = as_main("def own(): pass\nclass Own: pass\nMODEL = Own()\n", __file__=str(script))
    assert names.give(main.own, "loss") == f"{script}:own"
    assert names.give(main.Own, "app") == f"{script}:Own"
    assert names.give(main.MODEL, "model") == f"{script}:MODEL"


def test_what_a_module_has_that_is_run_by_its_name(as_main):
    main = as_main("def own(): pass\n", __spec__=types.SimpleNamespace(name="package.module"), __file__="/x.py")
    assert names.give(main.own, "loss") == "package.module:own"


@pytest.mark.parametrize("spec", ["__main__", "__mp_main__"])
def test_a_folder_that_is_run_is_a_script(script, as_main, spec):
    main = as_main("def own(): pass\n", __spec__=types.SimpleNamespace(name=spec), __file__=str(script))
    assert names.give(main.own, "loss") == f"{script}:own"


@pytest.mark.parametrize("file", [None, "<stdin>", "/no/such.py"])
def test_a_session_has_names_for_its_own_process_alone(as_main, monkeypatch, file):
    main = as_main("def own(): pass\nclass Own: pass\nMODEL = Own()\n", **({} if file is None else {"__file__": file}))
    monkeypatch.setitem(sys.modules, "__mp_main__", main)  # as multiprocessing has it
    for thing in (main.own, main.Own, main.MODEL):
        assert not names.reaches_others(names.give(thing, "thing"))


def test_another_process_finds_what_a_script_has(script):
    value = names.find(f"{script}:own")()
    assert value == 5, "with what lies beside it"
    assert names.find(f"{script}:Own.Inner").__qualname__ == "Own.Inner"
    assert names.find(f"{script}:MODEL") is names.find(f"{script}:MODEL"), "imported once"


def test_a_module_beside_a_script_does_not_hide_pythons(script):
    (script.parent / "colorsys.py").write_text("raise LookupError\n")
    names.find(f"{script}:own")
    assert sys.path[-1] == str(script.parent)


def test_a_module_that_was_made_by_hand_is_found(as_main):
    as_main("def own(): return 7\n")
    assert names.find("__main__:own")() == 7


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "must be module:name"),
        ("module", "must be module:name"),
        (":name", "must be module:name"),
        ("module:", "must be module:name"),
        ("in-process:gone", "was in the process that began this run"),
        ("no_such_module:x", "no module no_such_module is installed"),
        ("tests.no_such:x", "no module tests.no_such is installed"),
        ("tests.api.problems:nosuch", "there is no nosuch in tests.api.problems"),
        ("/no/such.py:x", "/no/such.py: there is no such script"),
    ],
)
def test_what_is_not_there_is_one_line(name, line):
    with pytest.raises(ConfigError, match=line):
        names.find(name)


def test_what_a_script_lacks_itself_comes_out_and_it_may_be_tried_again(script):
    script.write_text("import no_such_library\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"cannot be imported: ModuleNotFoundError: .*no_such_library"):
            names.find(f"{script}:own")
    script.write_text(SCRIPT)
    assert names.find(f"{script}:own")() == 5


def test_a_script_that_calls_when_it_is_imported_is_told(script):
    names.refuse_import("hsa2c.train")
    script.write_text("from hsa2c import names\nnames.refuse_import('hsa2c.train')\n")
    with pytest.raises(ConfigError, match=r"script.py: calls hsa2c.train when it is imported: must do so under if"):
        names.find(f"{script}:own")
    names.refuse_import("hsa2c.train")
