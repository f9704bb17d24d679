"""What documents and docstrings name in backticks is there: files, modules, and what modules hold."""

import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
EARLIER = ("CHANGELOG.md", "docs/upgrading.md")  # name what was there before
PACKAGES = "hsa2c|agents|envs|examples|bench"
DOTTED = re.compile(rf"`((?:{PACKAGES})(?:\.\w+)+)`")
FILE = re.compile(rf"(?<![\w./-])((?:{PACKAGES}|tests|docs|configs)/[\w./-]+\.(?:py|md|yaml))\b")


def texts():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = REPOSITORY / name
        if path.suffix in (".py", ".md", ".yaml", ".toml") and name not in EARLIER and path.exists():
            yield name, path.read_text(encoding="utf-8")


def is_there(dotted):
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        place = REPOSITORY.joinpath(*parts[:length])
        source = place.with_suffix(".py") if place.with_suffix(".py").exists() else place / "__init__.py"
        if source.exists():
            rest = parts[length:]
            return not rest or re.search(rf"\b{rest[0]}\b", source.read_text(encoding="utf-8")) is not None
    return False


def test_modules_and_what_they_hold():
    missing = {(name, found) for name, text in texts() for found in DOTTED.findall(text) if not is_there(found)}
    assert not missing


def test_files():
    missing = {
        (name, found) for name, text in texts() for found in FILE.findall(text) if not (REPOSITORY / found).exists()
    }
    assert not missing
