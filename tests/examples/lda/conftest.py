import pytest

from tests.examples.lda.planted import Planted


@pytest.fixture(scope="session")
def planted():
    """Four hundred documents of five topics."""
    return Planted()


@pytest.fixture(scope="module")
def corpus_files(planted, tmp_path_factory):
    """The same as files of counts and of words; what is made of them is kept in a cache beside, not in the user's."""
    folder = tmp_path_factory.mktemp("corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield planted.write_uci(folder)
