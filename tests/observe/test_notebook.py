"""A run's progress in a notebook, with a display that only remembers."""

import json
import sys
import types

import pytest

from hsa2c.observe import notebook
from hsa2c.observe.console import Console
from hsa2c.observe.notebook import NotebookView
from hsa2c.observe.runlog import METRICS, Journal
from hsa2c.observe.shown import Field

FIELDS = [Field("updates", "updates"), Field("loss < 1", "loss", "{:.2f}")]


class Display:
    """Remembers pages: one handle, whose page is replaced."""

    def __init__(self):
        self.pages, self.handles = [], 0

    def __call__(self, page):
        self.handles += 1
        self.pages.append(page)
        return self

    def update(self, page):
        self.pages.append(page)


@pytest.fixture
def ipython(monkeypatch):
    """As a kernel's process has it, as far as a view looks; remembers what is displayed."""
    display = Display()

    def show(page, display_id):
        assert display_id
        return display(page)

    kernel = types.SimpleNamespace(kernel=object())
    library = types.SimpleNamespace(HTML=lambda page: page, display=show)
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel, display=library))
    monkeypatch.setitem(sys.modules, "IPython.display", library)
    display.kernel = kernel
    return display


class Stage:
    def __init__(self, run, **how):
        self.now, self.run = 1000.0, run
        self.journal = Journal(run, session=0)
        self.console = Console(run, "A <run>", FIELDS, clock=lambda: self.now, **how)

    def after(self, seconds):
        self.now += seconds
        self.console.update()

    def row(self, **values):
        with (self.run / METRICS).open("a") as file:
            file.write(json.dumps({"time": 0.0, "session": 0, "step": 1, **values}) + "\n")


@pytest.fixture
def stage(tmp_path, ipython):
    with_view = Stage(tmp_path, limits={"elapsed_s": 100}, nodes=1)
    yield with_view
    with_view.journal.close()


def test_one_output_is_drawn_anew_at_most_once_a_second(stage, ipython):
    with stage.console:
        assert len(ipython.pages) == 1
        for _ in range(4):
            stage.after(0.24)
        assert len(ipython.pages) == 1
        stage.after(0.1)
        assert len(ipython.pages) == 2
    assert len(ipython.pages) == 3, "and at the end, whenever that is"
    assert ipython.handles == 1


def test_it_shows_values_events_time_and_folder_as_text(stage, ipython, tmp_path):
    stage.console.start()
    stage.journal.event("training", "training", nodes=1)
    stage.row(elapsed_s=25.0, updates=5000, loss=0.5)
    stage.journal.event("warning", "a <b> & c")
    stage.after(1.0)
    page = ipython.pages[-1]
    for text in (
        "A &lt;run&gt;",
        "5,000",
        "loss &lt; 1",
        "0.50",
        "a &lt;b&gt; &amp; c",
        "elapsed",
        "left",
        str(tmp_path),
    ):
        assert text in page
    assert "<progress" in page
    assert "<b> &" not in page
    stage.console.stop()


def test_only_the_last_lines_are_kept(stage, ipython):
    stage.console.start()
    for number in range(40):
        stage.console.say(f"line {number}.")
    stage.after(1.0)
    assert "line 39." in ipython.pages[-1]
    assert "line 27." not in ipython.pages[-1]
    stage.console.stop()


def test_a_display_that_has_gone_ends_nothing(tmp_path, ipython):
    def gone(page):
        raise BrokenPipeError

    stage = Stage(tmp_path, view=NotebookView("A run", tmp_path, FIELDS, gone))
    with stage.console:
        stage.after(2.0)
    stage.journal.close()


def test_a_file_or_another_shell_has_no_notebook(ipython, monkeypatch, tmp_path, capsys):
    assert notebook.shell() is ipython.kernel
    with (tmp_path / "out").open("w") as file:
        Console(tmp_path, "A run", FIELDS, file=file).start()
    assert ipython.pages == []
    del ipython.kernel.kernel  # IPython in a terminal
    assert notebook.shell() is None
    with Console(tmp_path, "A run", FIELDS):
        pass
    assert ipython.pages == []
    monkeypatch.delitem(sys.modules, "ipykernel")
    assert notebook.shell() is None
