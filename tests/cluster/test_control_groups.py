from pathlib import Path

from hsa2c.cluster import control_groups


def test_own_groups_go_up_to_the_root(monkeypatch):
    monkeypatch.setattr(control_groups, "read", lambda _: "5:pids,cpu:/a\n0::/b/c\n")
    top = Path("/sys/fs/cgroup")
    assert list(control_groups.folders("pids")) == [top / "pids/a", top / "pids", top / "b/c", top / "b", top]
    assert list(control_groups.folders("memory")) == [top / "b/c", top / "b", top]


def test_what_is_no_number_is_no_limit(tmp_path):
    for text, expected in {"12\n": 12, "max\n": None, "-1": None, "": None}.items():
        (tmp_path / "limit").write_text(text)
        assert control_groups.number(tmp_path / "limit") == expected
    assert control_groups.number(tmp_path / "none") is None
