"""Sentences of what users read have at most 25 words: many of our readers read English as a second language."""

import inspect
import re
import subprocess
import sys

import pytest

import hsa2c
from tests.processes import REPOSITORY

MOST_WORDS = 25
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "examples" / "lda" / "README.md",
    *sorted(page for page in (REPOSITORY / "docs").rglob("*.md") if not {"lab", "_build"} & set(page.parts)),
]
_FENCE = re.compile(r"^(```|:::).*?^\1[^\S\n]*$", re.MULTILINE | re.DOTALL)
_NO_PROSE = re.compile(r"^(    |\t|\||#|\{\{|!\[|\()")
_NEW_BLOCK = re.compile(r"^\s*([-*]|\d+\.|:)\s+")
_ABBREVIATION = re.compile(r"\b(Eq|Fig|vs|cf|al)\.")


def sentences(text):
    """Sentences of Markdown, without code, tables, headings and pictures; a link is its text, and code one word."""
    blocks, block = [], []
    for line in [*_FENCE.sub("\n", text).splitlines(), ""]:
        if not line.strip() or _NEW_BLOCK.match(line) or (not block and _NO_PROSE.match(line)) or line.startswith("|"):
            blocks.append(" ".join(block))
            block = []
        if line.strip() and not (not block and _NO_PROSE.match(line)):
            block.append(_NEW_BLOCK.sub("", line).strip())
    for whole in filter(None, blocks):
        plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", whole)
        plain = re.sub(r"`+[^`]*`+", "code", plain).replace("*", "")
        plain = _ABBREVIATION.sub(r"\1", plain)
        yield from re.split(r"(?<=[.!?])\)? +", plain)


def words(sentence):
    return [word for word in sentence.split() if re.search(r"\w", word)]


def too_long(text):
    return [(len(words(one)), one) for one in sentences(text) if len(words(one)) > MOST_WORDS]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_sentences_are_short(page):
    assert too_long(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("configuration", ["AtariConfig", "GymConfig", "LDAConfig", "MinimiseConfig"])
def test_settings_are_told_in_short_sentences(configuration, monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "docs" / "_ext"))
    from declared import sections

    told = [one for section in sections(REPOSITORY, configuration) for one in (section, *section.settings)]
    assert [(one.name, found) for one in told if (found := too_long(one.text))] == []


def documented():
    """Public names of `hsa2c` and of its classes, with their docstrings; each argument's text is a list item."""
    for name in hsa2c.__all__:
        value = getattr(hsa2c, name)
        members = vars(value).items() if inspect.isclass(value) else ()
        own = {
            f"{name}.{key}": one for key, one in members if key[0] != "_" and (callable(one) or hasattr(one, "fget"))
        }
        for key, one in {name: value, **own}.items():
            text = re.sub(r"^    (?! )", "- ", inspect.getdoc(one) or "", flags=re.MULTILINE)
            yield key, re.sub(r"^ +", "", text, flags=re.MULTILINE)


def test_public_names_are_told_in_short_sentences():
    assert dict(documented())["minimise"].startswith("Minimise a stochastic loss")
    assert [(name, found) for name, text in documented() if (found := too_long(text))] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["train", "evaluate", "export", "push", "doctor", "plan", "plot", "rates", "replay", "report"]
)
def test_help_is_in_short_sentences(command):
    run = [sys.executable, "-m", "hsa2c", command, "--help"]
    told = subprocess.run(run, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60).stdout
    prose = [part for part in told.split("\n\n") if not part.startswith((" ", "usage")) and ":\n  " not in part]
    assert prose
    assert too_long("\n\n".join(prose)) == []


LONG = " ".join(["word"] * 26) + "."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LONG, 1),
        (f"- {LONG}\n- {LONG}", 2),
        (" ".join(["word"] * 25) + ".", 0),
        (" ".join(["word"] * 20) + ".\n" + " ".join(["Word"] * 20) + ".", 0),
        (" ".join(["word"] * 20) + "\n" + " ".join(["word"] * 20), 1),
        (f"    {LONG}", 0),
        (f"```text\n{LONG}\n```", 0),
        (f"| {LONG} |", 0),
        ("`" + LONG + "`", 0),
        (f"[a](b) of Eq. 13 {LONG}", 1),
    ],
)
def test_a_long_sentence_is_found(text, found):
    assert len(too_long(text)) == found
