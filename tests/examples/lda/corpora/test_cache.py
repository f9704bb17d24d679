import errno
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from hsa2c.errors import ConfigError
from hsa2c.examples.lda.corpora import cache as cache_module
from hsa2c.examples.lda.corpora.cache import Recipe, cached, default_cache
from hsa2c.examples.lda.corpora.storage import (
    FILES,
    RECORD,
    complete,
    growing_array,
    map_array,
    read_array,
    write_entries,
)
from tests.examples.lda.corpora.reference import documents_of, message_of

ENTRY_FILES = [*FILES, RECORD]


class Kitchen:
    """Makes corpora of one document, and counts how many."""

    def __init__(self, cache):
        self.cache, self.made, self.meanwhile, self.ingredients = cache, 0, lambda: None, ["flour"]

    def recipe(self):
        return Recipe("letters", lambda: list(self.ingredients), self.make)

    def make(self, directory):
        self.made += 1
        write_entries(directory, np.array([0, 2]), np.array([self.made, 5]))
        self.meanwhile()
        complete(directory, np.array([2]), ["a", "b", "naïve\u2028"], "letters")

    def open(self):
        return cached(self.cache, self.recipe())

    def entry(self):
        (entry,) = self.cache.iterdir()
        return entry


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "deep" / "cache")


def test_what_was_made_is_opened_not_made_again(kitchen):
    first, second = kitchen.open(), kitchen.open()
    assert kitchen.made == 1
    assert documents_of(first) == documents_of(second) == [[(0, 1), (2, 5)]]
    assert first.vocabulary == second.vocabulary == ["a", "b", "naïve\u2028"]
    assert first.digest == second.digest
    assert sorted(file.name for file in kitchen.entry().iterdir()) == sorted(ENTRY_FILES)


def test_other_ingredients_are_another_corpus(kitchen):
    kitchen.open()
    kitchen.ingredients = ["sugar"]
    kitchen.open()
    assert kitchen.made == 2
    assert len(list(kitchen.cache.iterdir())) == 2


def test_nothing_is_kept_of_what_changed_while_it_was_read(kitchen):
    kitchen.meanwhile = lambda: kitchen.ingredients.append("sugar")
    assert message_of(kitchen.open) == "letters: has changed while it was read"
    assert list(kitchen.cache.iterdir()) == []


@pytest.mark.parametrize("error", [ConfigError("x"), KeyboardInterrupt(), ZeroDivisionError()])
def test_nothing_is_left_of_what_was_interrupted(kitchen, error):
    def stop():
        raise error

    kitchen.meanwhile = stop
    with pytest.raises(type(error)):
        kitchen.open()
    assert list(kitchen.cache.iterdir()) == []


# Damage


def without(path):
    path.unlink()


def shorter(path):
    path.write_bytes(path.read_bytes()[:-1])


def longer(path):
    path.write_bytes(path.read_bytes() + b"\n")


def other_bytes(path):
    path.write_bytes(bytes(len(path.read_bytes())))


@pytest.mark.parametrize("damage", [without, shorter, longer])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_entry_is_made_again(kitchen, file, damage):
    kitchen.open()
    damage(kitchen.entry() / file)
    assert documents_of(kitchen.open()) == [[(0, 2), (2, 5)]]
    assert documents_of(kitchen.open()) == [[(0, 2), (2, 5)]]
    assert kitchen.made == 2
    assert sorted(file.name for file in kitchen.entry().iterdir()) == sorted(ENTRY_FILES)


@pytest.mark.parametrize("file", ["indptr.npy", "words.npy", RECORD])
def test_so_is_one_whose_files_have_other_content(kitchen, file):
    kitchen.open()
    other_bytes(kitchen.entry() / file)
    kitchen.open()
    assert kitchen.made == 2


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"version": 0}', '{"version": 1, "bytes": {}}', "\udcff"])
def test_so_is_one_whose_record_is_none(kitchen, record):
    kitchen.open()
    (kitchen.entry() / RECORD).write_bytes(record.encode(errors="surrogateescape"))
    kitchen.open()
    assert kitchen.made == 2


def test_so_is_one_with_fewer_words_than_its_record_says(kitchen):
    kitchen.open()
    path = kitchen.entry() / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"V": 4}))
    kitchen.open()
    assert kitchen.made == 2


def test_so_is_a_file_where_a_folder_should_be(kitchen):
    kitchen.open()
    entry = kitchen.entry()
    entry.rename(entry.parent.parent / "away")
    entry.write_text("")
    kitchen.open()
    kitchen.open()
    assert kitchen.made == 2


def test_objects_in_an_array_are_not_unpickled(kitchen):
    kitchen.open()
    words, record = kitchen.entry() / "words.npy", kitchen.entry() / RECORD
    np.save(words, np.array([{}, {}], object), allow_pickle=True)
    content = json.loads(record.read_text())
    content["bytes"]["words.npy"] = words.stat().st_size
    record.write_text(json.dumps(content))
    kitchen.open()
    assert kitchen.made == 2


# Several processes


def test_of_two_that_make_the_same_the_first_to_be_ready_wins(kitchen):
    other = Kitchen(kitchen.cache)
    other.made = 10
    kitchen.meanwhile = other.open
    assert documents_of(kitchen.open()) == [[(0, 11), (2, 5)]]
    assert documents_of(kitchen.open()) == [[(0, 11), (2, 5)]]
    assert len(list(kitchen.cache.iterdir())) == 1


def test_an_open_corpus_outlives_its_entry(kitchen):
    corpus = kitchen.open()
    shorter(kitchen.entry() / "vocabulary.txt")
    assert documents_of(kitchen.open()) == [[(0, 2), (2, 5)]]
    assert documents_of(corpus) == [[(0, 1), (2, 5)]]


def test_an_entry_that_cannot_be_put_in_its_place_is_used_all_the_same(kitchen, monkeypatch):
    def spoil():
        entry = kitchen.cache / cache_module.key_of(kitchen.recipe())
        entry.mkdir(exist_ok=True)
        (entry / "x").write_text("")

    kitchen.meanwhile = spoil
    monkeypatch.setattr(cache_module, "discard", lambda entry: None)
    assert documents_of(kitchen.open()) == [[(0, 1), (2, 5)]]


PROGRAM = """
import sys
from pathlib import Path
from hsa2c.examples.lda.corpora import open_corpus
sys.stdin.readline()
print(open_corpus(sys.argv[1], Path(sys.argv[2]), cache=Path(sys.argv[3])).digest)
"""


def test_processes_at_once(tmp_path):
    source, vocabulary, cache = tmp_path / "x.ldac", tmp_path / "vocab.txt", tmp_path / "cache"
    source.write_text("2 0:1 1:1\n" * 1000)
    vocabulary.write_text("a\nb\n")
    command = [sys.executable, "-c", PROGRAM, source, vocabulary, cache]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    digests = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(digests) == 1
    assert len(list(cache.iterdir())) == 1


def test_what_was_killed_is_swept_away_in_time(kitchen):
    kitchen.cache.mkdir(parents=True)
    old, new = kitchen.cache / "unfinished-old", kitchen.cache / "unfinished-new"
    for left in (old, new):
        left.mkdir()
        (left / "words.npy").write_text("")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    kitchen.open()
    assert not old.exists()
    assert (new / "words.npy").exists()


# Where


def test_the_cache_is_where_the_user_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_cache() == tmp_path / "x" / "hsa2c" / "lda"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache() == tmp_path / "home" / ".cache" / "hsa2c" / "lda"


def _unkept(cache, why):
    return f"{cache}: corpora cannot be kept in it: {why}; XDG_CACHE_HOME names another folder for them"


def test_a_cache_that_is_no_folder(kitchen):
    kitchen.cache.parent.mkdir()
    kitchen.cache.write_text("")
    assert message_of(kitchen.open) == _unkept(kitchen.cache, "File exists")


def test_a_full_disk(kitchen):
    def fill():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kitchen.meanwhile = fill
    assert message_of(kitchen.open) == _unkept(kitchen.cache, "No space left on device")
    assert list(kitchen.cache.iterdir()) == []


# Arrays


@pytest.mark.parametrize("pieces", [[], [[]], [[1, 2], [], [3]], [[i] * 1000 for i in range(20)]])
def test_an_array_that_grew_is_one_that_numpy_reads(tmp_path, pieces):
    path = tmp_path / "x.npy"
    with growing_array(path, np.int32) as array:
        for piece in pieces:
            array.append(np.array(piece, np.int32))
    expected = [value for piece in pieces for value in piece]
    assert np.load(path).tolist() == map_array(path).tolist() == expected
    assert np.load(path).dtype == map_array(path).dtype == np.int32
    assert [value for block in read_array(path, 7) for value in block] == expected
