import os
import sys

import numpy as np
import pytest

from hsa2c.examples.lda.corpora import open_corpus, remark_on
from hsa2c.examples.lda.corpora.text import count_words, text_files
from tests.examples.lda.corpora.reference import documents_of, message_of


@pytest.fixture
def folder(tmp_path):
    def folder(**files):
        for name, content in files.items():
            path = tmp_path / "letters" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "letters"

    return folder


@pytest.fixture
def read(tmp_path, folder):
    return lambda **files: open_corpus(str(folder(**files)), cache=tmp_path / "cache")


def test_words_are_lower_case_letters_and_neither_short_nor_usual(read):
    corpus = read(
        a_txt="The Ship, the ship! Über 3rd of os_path x2 sea",
        b_md="ship üBER",
        more__c_rst="sea sea which",
        d_txt="sea",
        e_txt="",
        f_txt="alone",
    )
    assert corpus.vocabulary == ["sea", "ship", "über"]
    assert documents_of(corpus) == [[(0, 1), (1, 2), (2, 1)], [(1, 1), (2, 1)], [(0, 1)], [], [], [(0, 2)]]
    assert corpus.name == "letters"
    assert [corpus.indptr.dtype, corpus.words.dtype, corpus.counts.dtype] == [np.int64, np.int32, np.int32]


def test_words_in_too_few_or_too_many_documents_are_left_out():
    texts = ["sea wind ship", "sea wind ship", "sea wind", "sea rope", "sea"]
    words = ["rope", "sea", "ship", "wind"]  # in 1, 5, 2 and 3 of the texts
    for fewest, share, left in [(1, 1.0, words), (2, 0.5, ["ship"]), (2, 0.6, ["ship", "wind"]), (1, 0.4, words[::2])]:
        assert count_words(texts, fewest=fewest, share=share, what="")[-1] == left


def test_files_are_found_below_and_sorted_and_hidden_ones_left_out(folder):
    here = folder(b_txt="", a__z_TXT="", a_pdf="", a__y_markdown="", _git__c_txt="", _x_txt="")
    assert [str(path.relative_to(here)) for path in text_files(here)[0]] == ["a/y.markdown", "a/z.TXT", "b.txt"]


@pytest.mark.parametrize(
    "files",
    [
        {"a_txt": "", "b_txt": ""},
        {"a_txt": "sea", "b_txt": "ship"},
        {"a_txt": "sea", "b_txt": "sea"},
        {"a_txt": "sea ship"},
        {"a_txt": "the of", "b_txt": "the of", "c_txt": "", "d_txt": ""},
    ],
)
def test_no_word_is_left(read, tmp_path, files):
    assert message_of(read, **files) == (
        f"{tmp_path / 'letters'}: no words: none of three letters or more is in at least 2 documents and at most "
        "50% of them"
    )
    assert list((tmp_path / "cache").iterdir()) == []


ENDINGS = "end in .markdown, .md, .rst, .text, .txt"


def test_a_folder_without_text(read, tmp_path):
    assert message_of(read, a_pdf="x", b_doc="x") == (
        f"{tmp_path / 'letters'}: has no plain text: 2 of 2 files left out, such as a.pdf: names must {ENDINGS} "
        "(--pattern '*': all)"
    )
    (tmp_path / "empty").mkdir()
    assert message_of(open_corpus, str(tmp_path / "empty")) == f"{tmp_path / 'empty'}: has no plain text: it is empty"


def test_files_left_out_are_told(folder):
    here = folder(a_txt="", b_pdf="", c="", d__e="", _hidden="")
    assert remark_on(str(here)) == (
        f"{here}: 3 of 4 files left out, such as b.pdf: names must {ENDINGS} (--pattern '*': all)"
    )
    assert remark_on(str(here), "[ab]*") == (
        f"{here}: 2 of 4 files left out, such as c: names must fit [ab]* (--pattern '*': all)"
    )
    assert remark_on(str(here), "*") is None
    assert remark_on("pydocs") is remark_on(str(here / "a.txt")) is None


def test_files_of_any_name(tmp_path, folder):
    here = folder(a="sea", b="ship", c__d="sea ship", e="")
    corpus = open_corpus(str(here), pattern="*", cache=tmp_path / "cache")
    assert documents_of(corpus) == [[(0, 1)], [(1, 1)], [(0, 1), (1, 1)], []]
    assert [path.name for path in text_files(here, "[ad]")[0]] == ["a", "d"]


def test_links_to_folders_are_followed_once(read, folder, tmp_path):
    (tmp_path / "more").mkdir()
    for n in range(3):
        (tmp_path / "more" / f"{n}.txt").write_text("ship")
    here = folder(a_txt="sea", b__c_txt="sea", d_txt="", e_txt="", f_txt="")
    (here / "x").symlink_to(tmp_path / "more")
    (here / "y").symlink_to(tmp_path / "more")
    (here / "b" / "circle").symlink_to(here)
    assert [str(path.relative_to(here)) for path in text_files(here)[0]] == [
        *("a.txt", "b/c.txt", "d.txt", "e.txt", "f.txt", "x/0.txt", "x/1.txt", "x/2.txt")
    ]
    assert read().documents == 8


def test_what_is_no_file_is_told_and_not_waited_for(read, folder):
    here = folder(a_txt="sea", b_txt="sea", c_txt="")
    os.mkfifo(here / "pipe.txt")
    assert message_of(read) == f"{here}/pipe.txt: a pipe: must be a file, which can be read again"
    (here / "pipe.txt").unlink()
    (here / "gone.txt").symlink_to("nowhere")
    assert message_of(read) == f"{here}/gone.txt: cannot be read: No such file or directory"


def test_a_file_that_is_not_utf_8(read, tmp_path):
    here = tmp_path / "letters"
    files = {"a_txt": "sea", "b_txt": b"ship\nna\xefve\n", "c_txt": b"na\xefve", "d_txt": "", "e_txt": "sea"}
    message = message_of(read, **files)
    assert message.startswith(f"{here / 'b.txt'}: line 2: not UTF-8: ")
    assert message.endswith(" (--encoding)")
    assert list((tmp_path / "cache").iterdir()) == []
    assert open_corpus(str(here), encoding="latin-1", cache=tmp_path / "cache").vocabulary == ["naïve", "sea"]
    assert message_of(read).startswith(f"{here / 'b.txt'}: line 2"), "what is cached is of another encoding"


@pytest.mark.parametrize("encoding", ["no-such", "rot13", "a\0b", "é"])
def test_an_encoding_that_python_does_not_know(folder, encoding):
    message = message_of(open_corpus, str(folder(a_txt="sea")), encoding=encoding)
    assert message == f"encoding = {encoding!r}: must be one that Python knows: utf-8, latin-1, cp1252"


def test_without_scikit_learn(read, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    assert message_of(read, a_txt="sea") == (f"{tmp_path / 'letters'}: needs scikit-learn: pip install 'hsa2c[lda]'")


def test_any_change_in_the_folder_is_seen(read):
    before = read(a_txt="sea", b_txt="sea", c_txt="", d_txt="ship ship")
    assert read().digest == before.digest
    assert read(e_txt="ship").vocabulary == ["sea", "ship"]
    assert read(e_txt="wide").vocabulary == ["sea"]
