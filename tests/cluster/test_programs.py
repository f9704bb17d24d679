import sys

import pytest

from hsa2c.cluster.programs import ask
from hsa2c.errors import ConfigError, HSA2CError


def test_what_a_program_says_comes_back_whatever_its_exit_code_is():
    code = "import sys; print(sys.stdin.read() + 'said'); sys.stderr.buffer.write(b'\\xff'); sys.exit(3)"
    done = ask([sys.executable, "-c", code], 30.0)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "\ufffd")


def test_what_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(ConfigError, match="none: cannot be started: No such file"):
        ask([str(tmp_path / "none")], 1.0)


def test_what_does_not_end_is_named():
    with pytest.raises(HSA2CError, match=r"^sleep 60: no answer in 0 s$"):
        ask(["sleep", "60"], 0.1)
