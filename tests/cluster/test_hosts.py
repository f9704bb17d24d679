"""Host files, and what goes where. Runs over several hosts are in `test_hosts_faults`."""

import stat
import time
from collections import Counter

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsa2c.cluster import hosts
from hsa2c.cluster.hosts import Host
from hsa2c.errors import ConfigError
from tests.processes import command_line

THREE = (Host("a"), Host("b", 2), Host("c"))
RULE = "must be slots=N or p=K, each once, and nothing else"


def test_host_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# ours\n\nnode1  # the master's\n10.0.0.2 slots=4\n  n-3.example.org\tp=2 slots=1\nn4 p=1024\n")
    assert hosts.read(path) == (
        *(Host("node1", 1), Host("10.0.0.2", 4)),
        *(Host("n-3.example.org", 1, processes=2), Host("n4", 1, processes=1024)),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", ": names no host"),
        ("# a\n \n", ": names no host"),
        ("a\nb slots=-1\n", ", line 2: 'slots=-1': slots must be a number from 0 to 100000"),
        ("a slots=0\nb slots=0\n", ": slots=0 everywhere: one host at least must have a node"),
        ("a slots=two", ", line 1: 'slots=two': slots must be a number from 0 to 100000"),
        ("a slots=", ", line 1: 'slots=': slots must be a number from 0 to 100000"),
        ("a slots=9999999999999", ", line 1: 'slots=9999999999999': slots must be a number from 0 to 100000"),
        ("a slots=1 slots=2", f", line 1: 'slots=2': {RULE}"),
        ("a p=1 slots=1 p=1", f", line 1: 'p=1': {RULE}"),
        ("a max_slots=4", f", line 1: 'max_slots=4': {RULE}"),
        ("a b", f", line 1: 'b': {RULE}"),
        ("a P=2", f", line 1: 'P=2': {RULE}"),
        ("a p=0", ", line 1: 'p=0': p must be a number from 1 to 1024"),
        ("a\nb p=1025", ", line 2: 'p=1025': p must be a number from 1 to 1024"),
        ("a p=", ", line 1: 'p=': p must be a number from 1 to 1024"),
        ("a p=1.5", ", line 1: 'p=1.5': p must be a number from 1 to 1024"),
        ("slots=4", ", line 1: 'slots=4': must be a host's name or IPv4 address"),
        ("-oProxyCommand=x", ", line 1: '-oProxyCommand=x': must be a host's name or IPv4 address"),
        ("a\n\nA slots=2", ", line 3: A: is there twice; slots=N gives a host N nodes"),
    ],
)
def test_wrong_host_file_is_one_line(tmp_path, text, complaint):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        hosts.read(path)
    assert str(error.value) == f"{path}{complaint}"


def test_host_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none: cannot be read: No such file"):
        hosts.read(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary: cannot be read: "):
        hosts.read(tmp_path / "binary")


def test_a_host_may_have_the_master_alone():
    head, *others = everywhere = [Host("head", 0), Host("a", 2), Host("b", 1)]
    assert hosts.places(everywhere, 5) == ["a", "a", "b", "a", "a"]
    assert hosts.slots(everywhere) == 3
    assert hosts.nodes_left(everywhere, others, 3) == 3
    assert hosts.nodes_left(everywhere, [head], 3) == 0


def test_nodes_fill_slots_in_the_order_of_the_file_and_again():
    assert hosts.places(THREE, 3) == ["a", "b", "b"]
    assert hosts.places(THREE, 10) == ["a", "b", "b", "c", "a", "b", "b", "c", "a", "b"]


def test_spares_do_not_take_cores_from_nodes():
    places = hosts.places(THREE, 5)
    assert places == ["a", "b", "b", "c", "a"]
    assert hosts.beside(places, 4) == [1, 2, 2, 1, 1]
    assert hosts.beside(["a", "a", "b"], 2) == [2, 2, 1]


def test_p_goes_with_the_host():
    uneven = (Host("a", processes=1), Host("b", 2), Host("c", processes=3))
    assert hosts.processes(uneven, 6) == [1, None, None, 3, 1, None]
    assert hosts.processes(uneven[1:], 4) == [None, None, 3, None], "also when another host is lost"


@pytest.mark.parametrize(
    ("left", "nodes", "expected"),
    [
        ("abc", 4, 4),
        ("bc", 4, 3),  # b keeps 2, c 1
        ("ac", 4, 2),
        ("bc", 2, 2),  # a had one, b one, and room for another
        ("c", 2, 1),
        ("ac", 8, 4),  # all had twice their slots, and keep them
    ],
)
def test_nodes_that_go_on_when_hosts_are_lost(left, nodes, expected):
    remaining = [host for host in THREE if host.name in left]
    assert hosts.nodes_left(THREE, remaining, nodes) == expected


@given(slots=st.lists(st.integers(1, 4), min_size=1, max_size=5), nodes=st.integers(1, 30), data=st.data())
def test_no_host_gets_more_nodes_when_another_is_lost(slots, nodes, data):
    everywhere = [Host(f"h{i}", number) for i, number in enumerate(slots)]
    left = data.draw(st.lists(st.sampled_from(everywhere), min_size=1, unique=True).map(sorted_like(everywhere)))
    before = Counter(hosts.places(everywhere, nodes))
    number = hosts.nodes_left(everywhere, left, nodes)
    assert 1 <= number <= nodes
    after = Counter(hosts.places(left, number))
    for host in left:
        # Dealt out anew from the first host on, the last round may begin elsewhere.
        assert after[host.name] <= max(before[host.name], host.slots) + host.slots


def sorted_like(everywhere):
    return lambda some: sorted(some, key=everywhere.index)


def test_this_host_is_known_by_its_names():
    assert hosts.is_here("localhost")
    assert hosts.is_here("127.0.0.1")
    assert not hosts.is_here("198.51.100.1"), "an address for documentation, nobody's"


def test_hosts_that_answer(tmp_path, monkeypatch):
    """The agent is asked for all at a time, with a limit; this host needs no answer."""
    agent = tmp_path / "agent"
    agent.write_text('#!/bin/sh\ncase "$2" in *.2) exit 255 ;; *.3) sleep 60 ;; esac\nexec "$3"\n')
    agent.chmod(agent.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(hosts.AGENT, f"/no/such/agent : {agent} -q")
    asked = tuple(map(Host, ("localhost", "198.51.100.1", "198.51.100.2", "198.51.100.3")))
    began_at = time.monotonic()
    assert [host.name for host in hosts.answering(asked, limit_s=2.0)] == ["localhost", "198.51.100.1"]
    assert time.monotonic() - began_at < 10
    assert not any(str(agent) in command_line(process) for process in psutil.process_iter()), "nobody is left asking"


@pytest.mark.parametrize(
    ("silent", "why"),
    [("no-such-host.invalid", "has no address"), ("198.51.100.1", "does not answer")],
)
def test_host_that_does_not_answer_is_refused_by_its_name(monkeypatch, silent, why):
    monkeypatch.setenv(hosts.AGENT, "false")
    listed = (Host("localhost", 2), Host(silent), Host("no-other.invalid"))
    hosts.check_answers(listed, 2, 1, "file")  # neither has a node
    with pytest.raises(ConfigError, match=f"^file: host {silent}: {why}; `ssh {silent} true` must work"):
        hosts.check_answers(listed, 3, 1, "file")
    with pytest.raises(ConfigError, match=f"^file: host {silent}, and 1 more: {why}"):
        hosts.check_answers(listed, 4, 1, "file")
