import os
import subprocess
import sys
from pathlib import Path

import pytest

from hsa2c.examples.lda.corpora import open_corpus
from tests.examples.lda.corpora.reference import documents_of, message_of, write_vocabulary

DOCUMENTS = [[(0, 2), (2, 1)], [], [(1, 3)]]
SPELLINGS = {
    "docword.x.txt": "3\n3\n3\n1 1 2\n1 3 1\n3 2 3\n",
    "x.ldac": "2 0:2 2:1\n0\n1 1:3\n",
    "x.dat": "2 0:2 2:1\n0\n1 1:3\n",
    "x.lda-c": "2 0:2 2:1.0\n0\n1 1:3\n",
    "x.mtx": "%%MatrixMarket matrix coordinate integer general\n3 3 3\n1 1 2\n1 3 1\n3 2 3\n",
    "x.mm": "%%MatrixMarket matrix coordinate real general\n3 3 3\n1 1 2\n1 3 1.0\n3 2 3\n",
}


@pytest.fixture
def vocabulary(tmp_path):
    return write_vocabulary(tmp_path / "vocab.txt", 3)


def test_one_corpus_has_one_digest_in_every_format(tmp_path, vocabulary):
    digests = set()
    for name, content in SPELLINGS.items():
        (tmp_path / name).write_text(content)
        corpus = open_corpus(str(tmp_path / name), vocabulary, cache=tmp_path / "cache")
        assert corpus.name == name
        assert documents_of(corpus) == DOCUMENTS
        digests.add(corpus.digest)
    assert len(digests) == 1
    assert len(list((tmp_path / "cache").iterdir())) == len(SPELLINGS)


def test_another_count_word_or_document_is_another_digest(tmp_path, vocabulary):
    texts = ["1 0:1\n", "1 0:2\n", "1 1:1\n", "1 0:1\n0\n", "0\n1 0:1\n"]
    digests = set()
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.ldac"
        path.write_text(text)
        digests.add(open_corpus(str(path), vocabulary, cache=tmp_path / "cache").digest)
    vocabulary.write_text("x\ny\nz\n")
    digests.add(open_corpus(str(tmp_path / "0.ldac"), vocabulary, cache=tmp_path / "cache").digest)
    assert len(digests) == len(texts) + 1


@pytest.mark.parametrize("changed", ["source", "vocabulary"])
def test_a_changed_file_is_read_again(tmp_path, vocabulary, changed):
    source = tmp_path / "x.ldac"
    source.write_text("1 0:1\n")
    before = open_corpus(str(source), vocabulary, cache=tmp_path / "cache")
    if changed == "source":
        source.write_text("1 0:2\n")
        os.utime(source, (0, 0))  # also where the clock of the file system is coarse
    else:
        vocabulary.write_text("x\ny\nz\n")
        os.utime(vocabulary, (0, 0))
    assert open_corpus(str(source), vocabulary, cache=tmp_path / "cache").digest != before.digest


def test_a_relative_path_is_the_same_file(tmp_path, vocabulary, monkeypatch):
    (tmp_path / "x.ldac").write_text("1 0:1\n")
    monkeypatch.chdir(tmp_path)
    for source in ("x.ldac", tmp_path / "x.ldac", "./x.ldac"):
        open_corpus(str(source), vocabulary, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_missing_file(tmp_path, vocabulary):
    path = tmp_path / "x.ldac"
    assert message_of(open_corpus, str(path), vocabulary, cache=tmp_path) == f"{path}: no such file or folder"
    assert message_of(open_corpus, "a\0b", vocabulary, cache=tmp_path) == "a\0b: no such file or folder"
    path.write_text("1 0:1\n")
    assert (
        message_of(open_corpus, str(path), Path("a\0b"), cache=tmp_path) == "a\0b: cannot be read: embedded null byte"
    )
    assert message_of(open_corpus, str(path), tmp_path / "no", cache=tmp_path) == (
        f"{tmp_path / 'no'}: cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("name", SPELLINGS)
def test_files_need_a_vocabulary(tmp_path, name):
    (tmp_path / name).write_text(SPELLINGS[name])
    assert message_of(open_corpus, str(tmp_path / name), cache=tmp_path) == (
        f"{tmp_path / name}: must have a vocabulary: a file with one word on each line"
    )


def test_text_must_be_without(tmp_path, vocabulary):
    for source in ("pydocs", str(tmp_path)):
        assert message_of(open_corpus, source, vocabulary, cache=tmp_path) == (
            f"vocabulary = {vocabulary}: {source} must be without: its words are those of its text"
        )


def test_a_pattern_is_for_folders(tmp_path, vocabulary):
    (tmp_path / "x.dat").write_text("1 0:1\n")
    for source in ("pydocs", str(tmp_path / "x.dat")):
        message = message_of(open_corpus, source, pattern="*", cache=tmp_path / "cache")
        assert message == f"pattern = *: {source} must be without: it is no folder"


@pytest.mark.timeout(20)
def test_pipes_are_told_and_not_waited_for(tmp_path, vocabulary):
    (tmp_path / "x.dat").write_text("1 0:1\n")
    os.mkfifo(tmp_path / "pipe")
    again = "must be a file, which can be read again"
    cache = tmp_path / "cache"
    assert message_of(open_corpus, str(tmp_path / "pipe"), vocabulary, cache=cache) == (
        f"{tmp_path}/pipe: a pipe: {again}"
    )
    assert message_of(open_corpus, str(tmp_path / "x.dat"), tmp_path / "pipe", cache=cache) == (
        f"{tmp_path}/pipe: a pipe: {again}"
    )
    assert message_of(open_corpus, "/dev/null", vocabulary, cache=cache) == f"/dev/null: a device: {again}"
    assert message_of(open_corpus, str(tmp_path / "x.dat"), tmp_path, cache=cache) == f"{tmp_path}: a folder: {again}"


def test_words_of_another_encoding(tmp_path):
    (tmp_path / "x.dat").write_text("1 0:1\n")
    (tmp_path / "v").write_bytes(b"na\xefve\n")
    arguments = str(tmp_path / "x.dat"), tmp_path / "v"
    assert open_corpus(*arguments, encoding="cp1252", cache=tmp_path / "cache").vocabulary == ["naïve"]
    assert "not UTF-8" in message_of(open_corpus, *arguments, cache=tmp_path / "cache")


def test_opening_what_is_cached_costs_no_heavy_import(tmp_path, vocabulary):
    (tmp_path / "x.txt").write_text(SPELLINGS["docword.x.txt"])
    arguments = (str(tmp_path / "x.txt"), str(vocabulary), str(tmp_path / "cache"))
    open_corpus(arguments[0], vocabulary, cache=tmp_path / "cache")
    code = (
        "import sys; from pathlib import Path; from hsa2c.examples.lda.corpora import open_corpus;"
        "source, *paths = sys.argv[1:]; open_corpus(source, Path(paths[0]), cache=Path(paths[1]));"
        "print(sorted({'numba', 'scipy', 'sklearn', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
