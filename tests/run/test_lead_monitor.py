"""The lead's monitor with one follower, whose part is played by the test."""

import time

import numpy as np
import pytest

from hsa2c.agents.application import APPLICATION
from hsa2c.config.loading import to_dict
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import TransportError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.lead_monitor import LeadMonitor
from hsa2c.transport.messages import Kind, Limits
from hsa2c.transport.several_masters import Followers
from tests.run.test_monitor import IDENTITY, FakeLog, FakeTracker
from tests.transport.links import linked


class Played:
    """A monitor that has begun, its followers, and the follower's link; v is 0, 1, 2, 3, half of it the follower's."""

    def __init__(self, tmp_path, *, checkpoint_every_s=60.0):
        config = APPLICATION.build_config(
            {"cluster": {"nodes": 2, "masters": 2}, "output": {"checkpoint_every_s": checkpoint_every_s}}
        )
        lead, self.follower = linked(1)
        step = GlobalStep(0.5, 0.5, 4)
        v = np.arange(4, dtype=np.float32)
        self.followers = Followers([lead], v=v, z=step.z, t=0, limits=Limits(silence_s=0.3))
        self.log, self.tracker, self.folder = FakeLog(), FakeTracker(), tmp_path / "checkpoints"
        self.monitor = LeadMonitor(
            followers=self.followers,
            config=config,
            plain=to_dict(config),
            identity=IDENTITY,
            directory=tmp_path,
            session=1,
            log=self.log,
            tracker=self.tracker,
            step=step,
            counters={},
            states=(),
        )
        assert self.hears() == [Kind.SLICE]
        self.monitor.begin("queues")

    def hears(self):
        kinds = []
        while (message := self.follower.poll()) is not None:
            kinds.append(message.kind)
        return kinds

    def step(self, t):
        """The lead's slice moves by 10, its velocity by 1."""
        self.followers.own_v += 10
        self.followers.own_z += 1
        self.monitor.stepped(t, self.followers.own_v)

    def gives(self, kind, *numbers):
        self.follower.send(kind, vector=np.array(numbers, np.float32), number=1.0)

    def saved(self):
        checkpoint = checkpoints.load_newest(self.folder)[0]
        return checkpoint.t, checkpoint.v.tolist(), checkpoint.momentum.tolist()


def test_checkpoint_is_of_the_slices_that_were_gathered_for_it(tmp_path):
    played = Played(tmp_path, checkpoint_every_s=0.001)
    played.step(1)
    assert played.hears() == [Kind.PULL]
    time.sleep(0.002)
    assert not played.monitor.stopping()
    assert not played.folder.exists(), "half of it is not there"
    played.step(2)
    assert played.hears() == [], "asked already"
    played.gives(Kind.SLICE, 102, 103, 5, 6)
    assert not played.monitor.stopping()
    assert played.saved() == (2, [20, 21, 102, 103], [2, 2, 5, 6])
    assert played.tracker.looks == [True]


def test_followers_are_asked_now_and_then(tmp_path):
    played = Played(tmp_path)
    played.step(1)
    played.gives(Kind.SLICE, 102, 103, 5, 6)
    assert not played.monitor.stopping()
    assert played.hears() == [Kind.PULL]
    for t in range(2, 20):
        played.step(t)
        assert not played.monitor.stopping()
    assert played.hears() == []
    assert played.tracker.looks == [False], "at all of v, once"


def test_the_last_checkpoint_has_all_that_came(tmp_path):
    played = Played(tmp_path)
    played.monitor.stop("enough")
    assert played.monitor.stopping()
    assert played.hears() == [Kind.STOP]
    played.step(1)
    played.gives(Kind.LEAVE, 102, 103, 5, 6)
    played.monitor.finish(played.followers.own_v)
    assert played.saved() == (1, [10, 11, 102, 103], [1, 1, 5, 6])
    assert played.log.events[-1][2]["global_steps"] == 1


def test_what_is_kept_of_a_failure_is_of_one_moment(tmp_path):
    played = Played(tmp_path)
    played.step(1)
    played.gives(Kind.SLICE, 102, 103, 5, 6)
    assert not played.monitor.stopping()
    played.step(2)
    time.sleep(0.4)
    with pytest.raises(TransportError, match=r"^master 1: silent for") as caught:
        played.monitor.stopping()
    played.monitor.fail(str(caught.value), played.followers.own_v)
    assert played.saved() == (1, [10, 11, 102, 103], [1, 1, 5, 6])


def test_spares_are_called_by_all_masters(tmp_path):
    played = Played(tmp_path)
    played.monitor.lost(0, "its process has died")
    played.monitor.lost(1, "silent for 15 s")
    played.monitor.found(1, "is heard again")
    assert played.hears() == []
    played.monitor.found(2, "begins, in place of node 0")
    called = played.follower.poll()
    assert (called.kind, called.since) == (Kind.CALL, 2)
    assert played.log.kinds()[-2:] == ["node_back", "node_back"]
